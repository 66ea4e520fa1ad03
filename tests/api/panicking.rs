//! A letter on which our own code fails (CASES 57). There is none that we know of, so one is damaged where it is stored: the
//! number of its tries is the largest there is, and counting one more fails, since tests are built with checks of overflow.

use std::collections::BTreeMap;

use postroom::api::proto::attempt::Outcome;
use postroom::api::proto::message::State;
use postroom::api::proto::{Attempt, recipient};

use crate::desk::{FROM, count, execute, id, start_at, waiting};
use crate::eventually::eventually;
use crate::scripted::ordinary::Behaviour;
use crate::support::{letter, plain_account};

const OTHER: &str = "office@example.com";
/// So often a worker may fail on a letter.
const TIMES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_on_which_workers_fail_is_set_aside_and_the_others_flow() {
    let (server, postroom) = start_at(Behaviour::default().on("RCPT TO:<trip@", "451 4.3.0 later\r\n")).await;
    postroom.create_account(plain_account(&server, OTHER)).await;
    let bad = waiting(&postroom, &["trip@example.org"]).await;
    let damage = "update messages set recipients = jsonb_set(recipients, '{0,tries}', '4294967295')";
    execute(&postroom, &format!("{damage} where message_id = '{}'", id(&bad))).await;

    let mut expected = Vec::new();
    for round in 1..=TIMES {
        // In the hand of the same worker, behind it.
        let behind = [format!("ann{round}@example.org"), format!("bob{round}@example.org")];
        let mut letters = Vec::new();
        for to in &behind {
            letters.push(waiting(&postroom, &[to]).await);
        }
        let due = format!(
            "update queue set due = now() + case when message_id = '{}' then interval '0' else interval '1 microsecond' end",
            id(&bad)
        );
        execute(&postroom, &due).await;
        let tried = postroom.wait_for_attempts(&bad.name, round).await;
        let is_last = round == TIMES;
        assert_eq!(tried.state(), if is_last { State::Failed } else { State::Queued }, "{tried:?}");
        let panics = format!("select panics::bigint from queue where message_id = '{}'", id(&bad));
        if !is_last {
            assert_eq!(count(&postroom, &panics).await, i64::try_from(round).expect("few"));
        }
        let other = format!("office{round}@example.org");
        for (from, to) in [(FROM, format!("shop{round}@example.org")), (OTHER, other)] {
            let sent = postroom.send_and_wait(letter(from, &[&to])).await;
            assert_eq!(sent.state(), State::Sent, "{sent:?}");
            expected.push(to);
        }
        for message in &letters {
            eventually("the letters behind it are sent", async || {
                (postroom.message(&message.name).await.state() == State::Sent).then_some(())
            })
            .await;
        }
        expected.extend(behind);
    }

    let failed = postroom.message(&bad.name).await;
    assert!(failed.final_time.is_some());
    let outcomes: Vec<_> = failed.attempts.iter().map(Attempt::outcome).collect();
    assert_eq!(outcomes, [Outcome::Interrupted; TIMES]);
    let [to] = failed.recipients.as_slice() else { panic!("{failed:?}") };
    assert_eq!(to.state(), recipient::State::Failed);
    let words = to.reply.as_ref().map(|reply| reply.text.as_str());
    assert_eq!(words, Some("the server failed while it worked on this letter; its log tells more"));

    let journal = server.journal();
    let tries = journal.commands.iter().filter(|command| command.starts_with("RCPT TO:<trip@")).count();
    assert_eq!(tries, TIMES, "each of its attempts came so far");
    let mut copies = BTreeMap::new();
    for to in journal.letters.iter().flat_map(|letter| &letter.recipients) {
        let address = to.trim_start_matches('<').split('>').next().unwrap_or_default();
        *copies.entry(address.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(copies, expected.into_iter().map(|to| (to, 1)).collect(), "each once, and nobody else");
}
