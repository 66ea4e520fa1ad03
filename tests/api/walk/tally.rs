//! What the walk found, field by field.

use postroom::api::proto::Message;

use super::fields::Field;
use super::values::Nature;

/// Fewest values of a field.
pub(super) const MIN_VALUES: usize = 40;

/// What a walker found.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) found: Vec<Found>,
    /// Letters that were taken to be sent.
    pub(super) letters: Vec<Message>,
    /// What is wrong beside single fields.
    pub(super) wrong: Vec<String>,
}

/// What was found of one field.
pub(super) struct Found {
    pub(super) field: Field,
    call: String,
    /// The number of the right request that was changed.
    number: usize,
    taken: usize,
    named: usize,
    otherwise: usize,
    /// A value that was refused by the name of the field alone, and that name.
    pub(super) example: Option<(Vec<u8>, String)>,
    /// Whether that is one with control characters.
    is_control: bool,
    wrong: Vec<String>,
}

impl Found {
    pub(super) fn new(call: &str, field: &Field, number: usize) -> Self {
        Self {
            field: field.clone(),
            call: call.to_owned(),
            number,
            taken: 0,
            named: 0,
            otherwise: 0,
            example: None,
            is_control: false,
            wrong: Vec::new(),
        }
    }

    pub(super) fn taken(&mut self) {
        self.taken += 1;
    }

    pub(super) fn otherwise(&mut self) {
        self.otherwise += 1;
    }

    pub(super) fn refused(&mut self, nature: Nature, records: &[u8], fields: &[String]) {
        self.named += 1;
        // Control characters are refused whatever else there is; of numbers the last ones are the wildest.
        let better = match nature {
            Nature::Control => self.example.is_none(),
            Nature::Typed => !self.is_control,
            Nature::NoText | Nature::Malformed => false,
        };
        if let ([only], true) = (fields, better && records.len() < 1_000) {
            self.example = Some((records.to_vec(), only.clone()));
            self.is_control = nature == Nature::Control;
        }
    }

    pub(super) fn wrong(&mut self, what: &str, wrong: &str) {
        self.wrong.push(format!("{} {}: {what}: {wrong}", self.call, self.field.path));
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        let Self { found, letters, wrong } = other;
        self.found.extend(found);
        self.letters.extend(letters);
        self.wrong.extend(wrong);
    }

    /// What was found of a call with its right request of this number.
    pub(super) fn of(&self, call: &str, number: usize) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(move |found| found.call == call && found.number == number)
    }

    /// Tells the shares, and fails where anything is wrong.
    pub(super) fn report(&self, service: &str) {
        let mut wrong = self.wrong.clone();
        let mut values = 0;
        for found in &self.found {
            let all = found.taken + found.named + found.otherwise + found.wrong.len();
            values += all;
            let Found { call, field, taken, named, otherwise, .. } = found;
            // Seen with --nocapture.
            println!(
                "{call} {}: {all} values, {taken} taken, {named} named, {otherwise} otherwise",
                field.path
            );
            if all < MIN_VALUES {
                wrong.push(format!("{call} {}: only {all} values", field.path));
            }
            wrong.extend(found.wrong.iter().cloned());
        }
        println!("{service}: {} fields, {values} values", self.found.len());
        // Too many to read tell no more than some.
        let told = wrong.iter().step_by(wrong.len() / 300 + 1).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{} wrong answers:\n{told}", wrong.len());
    }
}
