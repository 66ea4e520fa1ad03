//! A walk over all fields of all requests, as the descriptors tell them: dozens of bad values in each. Nothing panics,
//! nothing is INTERNAL, each refusal names its field, and what is taken makes no further line anywhere.

mod bases;
mod fields;
mod raw;
mod tally;
mod values;
mod verdict;
mod wire;
mod wires;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use prost_reflect::MethodDescriptor;
use tokio::task::{JoinSet, LocalSet};
use tonic::Code;

use self::bases::Rig;
use self::fields::Field;
use self::raw::Answer;
use self::tally::{Found, MIN_VALUES, Tally};
use self::values::{Nature, Value};
use self::verdict::{Fate, Trial};
use self::wire::Old;
use crate::support::{Authorised, PATIENCE};

/// The services that are walked, each by a test of its own.
const SERVICES: [&str; 4] = ["SettingsService", "AccountsService", "SendService", "LogsService"];
/// Fields that are worked on at once, each over a connection of its own; few, so that other tests get on meanwhile.
const WALKERS: usize = 3;
/// The threads of the servers under the walk, by which their panics are told from those of other tests.
const THREADS: &str = "under-the-walk";
/// Fields that may hold what they like: they travel encoded, as a body.
const BODIES: [&str; 2] = ["message.composed.text", "message.composed.html"];

/// Panics seen on [`THREADS`].
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn every_service_is_walked() {
    let all: Vec<String> = fields::pool().services().map(|service| service.name().to_owned()).collect();
    assert_eq!(all, SERVICES);
}

#[test]
fn every_field_of_settings() {
    walk("SettingsService");
}

#[test]
fn every_field_of_accounts() {
    walk("AccountsService");
}

#[test]
fn every_field_of_sending() {
    walk("SendService");
}

#[test]
fn every_field_of_logs() {
    walk("LogsService");
}

fn walk(service: &str) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREADS) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            usual(panic);
        }));
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(THREADS).enable_all().build();
    let walkers = LocalSet::new();
    walkers.block_on(&runtime.expect("a runtime"), walk_all(service));
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics, told above");
}

async fn walk_all(service: &str) {
    let rig = Rc::new(Rig::start().await);
    let mut queue = VecDeque::new();
    for method in fields::calls(service) {
        check_base(&rig, &method).await;
        queue.extend(fields::of(&method).into_iter().map(|field| (method.clone(), field)));
    }
    let queue = Rc::new(RefCell::new(queue));
    let mut walkers = JoinSet::new();
    for _ in 0..WALKERS {
        let (rig, queue) = (Rc::clone(&rig), Rc::clone(&queue));
        walkers.spawn_local(async move {
            let channel = rig.postroom.channel(&rig.postroom.key);
            let mut tally = Tally::default();
            loop {
                let next = queue.borrow_mut().pop_front();
                let Some((method, field)) = next else { return tally };
                walk_field(&rig, &channel, &method, &field, &mut tally).await;
            }
        });
    }
    let mut tally = Tally::default();
    while let Some(part) = walkers.join_next().await {
        tally.add(part.expect("no panic"));
    }
    for method in fields::calls(service) {
        all_at_once(&rig, &method, &mut tally).await;
    }
    tally.report(service);
    wires::look(&rig, &tally.letters).await;
}

/// The right requests are right: otherwise nothing would be learned from the wrong ones.
async fn check_base(rig: &Rig, method: &MethodDescriptor) {
    let channel = rig.postroom.channel(&rig.postroom.key);
    for request in rig.requests(method.name()).await {
        // Letters that are final, and senders that are confirmed, are all that these three find.
        let known = match method.name() {
            "CancelMessage" | "RetryMessage" => Some("STATE_CONFLICT"),
            "ConfirmSender" => Some("CODE_EXPIRED"),
            _ => None,
        };
        match (patient_call(&channel, method, &request).await, known) {
            (Answer::Taken(_), None) => {}
            (Answer::Refused(status), Some(reason)) => {
                assert_eq!(crate::support::reason(&status).1, reason, "{}", method.name());
            }
            (Answer::Refused(status), None) => panic!("{}: {status:?}", method.name()),
            (Answer::Item(code, reason, text), _) => panic!("{}: {code} {reason} {text}", method.name()),
            (Answer::Taken(_), Some(reason)) => panic!("{}: no {reason}", method.name()),
        }
    }
}

/// The number of the right request that a field is best seen in: most of the messages around it are there, and of a choice
/// it is chosen.
fn best(requests: &[Vec<u8>], field: &Field) -> usize {
    let depth = |request: &Vec<u8>| {
        (0..=field.way.len()).take_while(|depth| wire::has(request, &field.way[..*depth])).count()
    };
    let deepest = requests.iter().map(depth).max();
    requests.iter().position(|request| Some(depth(request)) == deepest).unwrap_or(0)
}

async fn walk_field(
    rig: &Rig,
    channel: &Authorised,
    method: &MethodDescriptor,
    field: &Field,
    tally: &mut Tally,
) {
    let requests = rig.requests(method.name()).await;
    // The last one costs least, where there are several: nobody is connected to. Of TLS, the journal of a server without it
    // would hold nothing that can be read.
    let number = if field.output_only || field.path == "account.security" {
        requests.len() - 1
    } else {
        best(&requests, field)
    };
    let request = &requests[number];
    let lenient = field.output_only || BODIES.contains(&field.path.as_str());
    let mut found = Found::new(method.name(), field, number);
    let right = wire::content(request, &field.way);
    let values = if field.output_only {
        values::some_of(&field.descriptor, MIN_VALUES)
    } else {
        values::around(&field.descriptor, right).into_iter().chain(values::of(&field.descriptor)).collect()
    };
    for Value { what, records, nature } in values {
        let list = field.descriptor.is_list();
        let mut tries =
            vec![(Old::Dropped, if list { format!("{}[0]", field.path) } else { field.path.clone() })];
        if list && nature != Nature::Malformed {
            let index = wire::count(request, &field.way);
            if index > 0 {
                tries.push((Old::Kept, format!("{}[{index}]", field.path)));
            }
        }
        for (old, path) in tries {
            let path = if nature == Nature::Malformed { &field.path } else { &path };
            let trial = Trial { path, choices: &field.choices, nature, lenient };
            let bad = wire::with(request, &field.way, old, &records);
            let answer = patient_call(channel, method, &bad).await;
            match verdict::judge(&trial, &answer) {
                Ok(Fate::Named(fields)) => found.refused(nature, &records, &fields),
                Ok(Fate::Taken) => found.taken(),
                Ok(Fate::Otherwise) => found.otherwise(),
                Err(wrong) => found.wrong(&what, &wrong),
            }
            if let (Answer::Taken(response), "SendMessages") = (&answer, method.name()) {
                tally.letters.extend(verdict::letter(response));
            }
        }
    }
    if field.descriptor.is_list() && !field.output_only {
        // More of them than anybody needs: refused by the name of the list, or taken.
        let one = values::of(&field.descriptor).into_iter().next().expect("values");
        let bad = wire::with(request, &field.way, Old::Kept, &one.records.repeat(10_000));
        let trial = Trial { path: &field.path, choices: &[], nature: Nature::Typed, lenient: true };
        if let Err(wrong) = verdict::judge(&trial, &patient_call(channel, method, &bad).await) {
            found.wrong("10,000 of them", &wrong);
        }
    }
    tally.found.push(found);
}

/// All that was refused by name, in one request: all of it is named at once.
async fn all_at_once(rig: &Rig, method: &MethodDescriptor, tally: &mut Tally) {
    let channel = rig.postroom.channel(&rig.postroom.key);
    for (number, mut request) in rig.requests(method.name()).await.into_iter().enumerate() {
        let mut expected = Vec::new();
        for found in tally.of(method.name(), number) {
            let Some((records, path)) = &found.example else { continue };
            // What is inside a message is put in by itself. A mask says which of the other fields count.
            let inside =
                fields::walked(&found.field.descriptor).is_some() || found.field.path == "update_mask";
            if !inside && wire::has(&request, &found.field.way[..found.field.way.len() - 1]) {
                request = wire::with(&request, &found.field.way, Old::Dropped, records);
                expected.push(path.clone());
            }
        }
        let named = match patient_call(&channel, method, &request).await {
            _ if expected.is_empty() => continue,
            Answer::Refused(status) => match verdict::of_status(&status) {
                Ok((_, _, fields)) => fields,
                Err(wrong) => vec![wrong],
            },
            Answer::Item(_, _, text) => verdict::fields_of_text(&text),
            Answer::Taken(_) => Vec::new(),
        };
        let missing: Vec<&String> = expected.iter().filter(|path| !named.contains(path)).collect();
        if !missing.is_empty() {
            let call = method.name();
            tally
                .wrong
                .push(format!("{call}: of {} at once these are not named: {missing:?}", expected.len()));
        }
    }
}

/// Calls again where the store was busy: a machine at its limits is none of the walk's matters.
async fn patient_call(channel: &Authorised, method: &MethodDescriptor, request: &[u8]) -> Answer {
    let start = Instant::now();
    loop {
        match raw::call(channel, method, request.to_vec()).await {
            Answer::Refused(status) if status.code() == Code::Unavailable && start.elapsed() < PATIENCE => {}
            Answer::Item(code, ..) if code == Code::Unavailable as i32 && start.elapsed() < PATIENCE => {}
            answer => return answer,
        }
    }
}
