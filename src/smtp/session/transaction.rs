//! One transaction of a letter (RFC 5321 3.3): MAIL, its RCPTs, DATA, the content and the dot.

use tokio::time::Instant;

use super::Session;
use super::announced::{ANSWERED_WITHIN, Announced};
use super::gate::Gate;
use super::ledger::Ledger;
use super::letter::{Admitted, say};
use crate::domain::log::EntryKind;
use crate::domain::outcome::{Class, Step};
use crate::domain::reply::Reply;
use crate::smtp::content::Content;
use crate::smtp::session::dialogue::CLOSING;
use crate::smtp::transcript::Transcript;
use crate::smtp::wire::{Broken, Written, record_count};

/// Content written at once. Within `Deadlines::content_block`, at 500 bytes a second.
const BLOCK_BYTES: usize = 64 * 1024;
/// What a transcript shows of a letter, in bytes.
const MAX_SHOWN_BYTES: usize = 64 * 1024;
/// And of its lines: each costs more than its bytes, and the replies need room, too.
const MAX_SHOWN_LINES: usize = 3_000;
/// How long a server that interrupts may take to read the rest of what goes with the dot.
const REST_OF_ENVELOPE: std::time::Duration = std::time::Duration::from_secs(1);
/// How long to listen for the reason after the server cut the connection within the content.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

/// The session is over: what is told to recipients who have no result yet. They are always tried again.
pub(super) struct Stop {
    pub(super) step: Step,
    pub(super) reply: Reply,
}

/// How the writing of a content ended.
enum Sent {
    /// The dot is out, or may be; whether all is that was to go with it.
    WithDot { whole: bool },
    /// Nothing of it is out: the server had ended the session after it heard the envelope, with the letter before.
    Nothing,
    /// The dot was not to be written.
    Forbidden(Reply),
    /// The server spoke within the content.
    Interrupted,
    /// The connection broke within the content.
    Broken(Broken),
}

/// One MAIL with its recipients. Each run settles at least one recipient of its batch.
pub(super) struct Transaction<'a, G> {
    pub(super) session: &'a mut Session,
    pub(super) gate: &'a G,
    pub(super) admitted: &'a Admitted<'a>,
    pub(super) batch: Vec<usize>,
    /// Whether the server has answered anything since this letter's turn began.
    pub(super) answered: bool,
    /// Whether its envelope was said with the dot of the letter before.
    pub(super) ahead: bool,
    /// Whether the transcript has the letter's lines already: a letter of many transactions is shown once.
    pub(super) lines_told: &'a mut bool,
    pub(super) ledger: &'a mut Ledger,
    pub(super) log: &'a Transcript,
}

impl<G: Gate> Transaction<'_, G> {
    /// `dirty` tells whether a RSET must come first; the answer, whether one is needed afterwards.
    pub(super) async fn run(&mut self, dirty: bool) -> Result<bool, Stop> {
        let pipelining = self.session.capabilities.pipelining;
        self.session.out.clear();
        if dirty {
            say(&mut self.session.out, "RSET");
            if !pipelining {
                self.flush(Step::Envelope).await?;
                self.reset().await?;
                self.session.out.clear();
            }
        }
        let Session { capabilities, out, .. } = &mut *self.session;
        if pipelining {
            self.admitted.group(&self.batch, capabilities, out);
        } else {
            say(out, &self.admitted.mail(&self.batch, capabilities));
        }
        match self.session.announced.take() {
            None => self.flush(Step::Envelope).await?,
            Some(announced) if announced.envelope == self.session.out => {
                self.ahead = true;
                self.log.record(EntryKind::Connection, "said with the dot of the letter before:");
                self.note_said();
            }
            Some(_) => return Err(self.left(false, Reply::absent("the server waits for another letter"))),
        }
        if dirty && pipelining {
            self.reset().await?;
        }
        let reply = self.hear(Step::Envelope).await?;
        if reply.code != 250 {
            if self.ahead {
                // The sender may be refused, or that he was named this soon, or it is a second word about the letter before: a
                // session in which nothing is said ahead tells.
                return Err(self.left(reply.is_permanent(), reply));
            }
            let Some(class) = refusal(&reply) else {
                return Err(Stop { step: Step::Envelope, reply });
            };
            // It is the sender who is refused: the next transaction would hear the same.
            self.ledger.settle_rest(class, Step::Envelope, &reply);
            if pipelining {
                self.hear_out().await?;
            }
            return Ok(true);
        }
        let accepted = self.recipients(pipelining).await?;
        if !pipelining {
            if accepted.is_empty() {
                return Ok(true);
            }
            self.session.out.clear();
            say(&mut self.session.out, "DATA");
            self.flush(Step::Content).await?;
        }
        let reply = self.hear(Step::Content).await?;
        if reply.code == 354 {
            if accepted.is_empty() {
                // The server waits for the content of a letter that nobody may get (RFC 2920 3.1): it gets none.
                let reply = Reply::absent("the server asked for the content after refusing every recipient");
                return Err(Stop { step: Step::Content, reply });
            }
            self.content(&accepted).await?;
            return Ok(false);
        }
        let Some(class) = refusal(&reply) else {
            return Err(self.nonsense(Step::Content, reply));
        };
        if self.ahead && !accepted.is_empty() {
            // It may be the word about a recipient, one too late.
            return Err(self.left(true, reply));
        }
        self.ledger.settle_all(&accepted, class, Step::Content, &reply);
        Ok(true)
    }

    /// The reply to RSET.
    async fn reset(&mut self) -> Result<(), Stop> {
        let reply = self.hear(Step::Envelope).await?;
        if reply.code == 250 { Ok(()) } else { Err(Stop { step: Step::Envelope, reply }) }
    }

    /// The recipients that the server takes. The others have their result, but for those that were too many.
    async fn recipients(&mut self, pipelining: bool) -> Result<Vec<usize>, Stop> {
        let mut accepted = Vec::with_capacity(self.batch.len());
        for recipient in self.batch.clone() {
            if !pipelining {
                self.session.out.clear();
                say(&mut self.session.out, &self.admitted.rcpt(recipient));
                self.flush(Step::Envelope).await?;
            }
            let reply = self.hear(Step::Envelope).await?;
            if matches!(reply.code, 250..=252) {
                accepted.push(recipient);
                continue;
            }
            let Some(class) = refusal(&reply) else {
                return Err(self.nonsense(Step::Envelope, reply));
            };
            if accepted.is_empty() || !is_too_many(&reply) {
                self.ledger.settle(recipient, class, Step::Envelope, reply);
            }
        }
        Ok(accepted)
    }

    /// After a refused MAIL: the replies to the RCPTs and the DATA that went out with it.
    async fn hear_out(&mut self) -> Result<(), Stop> {
        for _ in 0..self.batch.len() {
            self.hear(Step::Envelope).await?;
        }
        let reply = self.hear(Step::Content).await?;
        match refusal(&reply) {
            Some(_) => Ok(()),
            None => Err(Stop { step: Step::Content, reply }),
        }
    }

    async fn content(&mut self, accepted: &[usize]) -> Result<(), Stop> {
        let content = self.admitted.content;
        self.log.record(EntryKind::Client, format!("<letter, {} bytes>", content.size()));
        if self.admitted.letter.is_private {
            self.log.record(EntryKind::Data, "<a letter of Postroom's own: its lines are never shown>");
        } else if std::mem::replace(self.lines_told, true) {
            self.log.record(EntryKind::Data, "<the same lines as above>");
        } else {
            show_lines(self.admitted.letter.content, self.log);
        }
        let start = Instant::now();
        let is_whole;
        match self.write(content, accepted).await {
            Sent::WithDot { whole } => {
                is_whole = whole;
                let elapsed = start.elapsed().as_millis();
                self.log.record(EntryKind::Connection, format!("the letter was written in {elapsed} ms"));
            }
            Sent::Forbidden(reason) => {
                self.ledger.settle_rest(Class::Untried, Step::Content, &reason);
                return Err(Stop { step: Step::Content, reply: reason });
            }
            Sent::Nothing => return Err(self.left(false, Reply::absent("the server ended the session"))),
            Sent::Interrupted => return Err(self.broke_off(accepted, None).await),
            Sent::Broken(broken) => return Err(self.broke_off(accepted, Some(broken)).await),
        }
        let within = self.session.dialogue.deadlines.acceptance;
        let heard = self.session.dialogue.timed_reply("the reply to the letter", within, self.log).await;
        let (class, reply) = match &heard {
            Ok(raw) => {
                let reply = self.session.dialogue.stored(raw);
                let class = if reply.is_positive() {
                    Class::Sent
                } else {
                    refusal(&reply).unwrap_or(Class::Uncertain)
                };
                (class, reply)
            }
            Err(broken) => (Class::Uncertain, self.session.dialogue.absent(broken)),
        };
        self.ledger.settle_all(accepted, class, Step::Acceptance, &reply);
        if class == Class::Uncertain && (self.session.announced.is_some() || !is_whole) {
            // Maybe for what came with the dot: not again.
            self.session.deaf = true;
        }
        if class == Class::Uncertain || reply.code == CLOSING {
            return Err(Stop {
                step: Step::Acceptance,
                reply: Reply::absent("the session ended with the letter before"),
            });
        }
        if !is_whole {
            // Half an envelope is out; everybody here has a result.
            let reply = Reply::absent("the server does not read on");
            return Err(Stop { step: Step::Acceptance, reply });
        }
        Ok(())
    }

    /// Writes the content and the dot.
    async fn write(&mut self, content: Content<'_>, accepted: &[usize]) -> Sent {
        let deadlines = self.session.dialogue.deadlines;
        let start = Instant::now();
        let end = start + deadlines.content(content.size());
        let mut blocks = content.blocks(BLOCK_BYTES);
        let mut next = None;
        if self.ahead && self.session.dialogue.wire.is_disturbed() {
            // Before the gate notes a dot.
            return Sent::Nothing;
        }
        self.session.out.clear();
        while blocks.next_into(&mut self.session.out) {
            let (dot, letter_end) = (blocks.is_done(), self.session.out.len());
            if dot {
                if let Err(reason) = self.gate.dot(accepted).await {
                    return Sent::Forbidden(reason);
                }
                next = self.next(accepted);
            }
            let Session { dialogue, out, .. } = &mut *self.session;
            out.extend_from_slice(next.as_deref().unwrap_or_default());
            let deadline = end.min(Instant::now() + deadlines.content_block);
            let written = dialogue.wire.write_listening(out, deadline).await;
            record_count(self.log, "wrote", out.len());
            match written {
                Written::All => {}
                // The dot may have gone out: only the reply to it can tell. It does not wait for what goes with it.
                Written::Interrupted { sent } | Written::Broken { sent, .. } if dot && sent >= letter_end => {
                    let rest = dialogue.wire.write(&out[sent..], Instant::now() + REST_OF_ENVELOPE).await;
                    if next.is_some() && rest.is_err() {
                        return Sent::WithDot { whole: false };
                    }
                }
                Written::Interrupted { .. } => return Sent::Interrupted,
                Written::Broken { broken, .. } => return Sent::Broken(broken),
            }
            self.session.out.clear();
        }
        self.session.announced = next.map(Announced::new);
        Sent::WithDot { whole: true }
    }

    /// What is said with the dot for these: the envelope of the next letter, if with them everybody is settled.
    fn next(&mut self, accepted: &[usize]) -> Option<Vec<u8>> {
        let is_last = self.session.next.is_some() && self.ledger.open(usize::MAX).len() == accepted.len();
        if is_last { self.session.next.take() } else { None }
    }

    /// A reply that cannot be one to what was said. Where that was said ahead, the server may have said too much of the letter
    /// before.
    fn nonsense(&mut self, step: Step, reply: Reply) -> Stop {
        if self.ahead { self.left(true, reply) } else { Stop { step, reply } }
    }

    /// Leaves a session in which nothing of the letter was taken: it goes over a new one. If the server takes `offence` at
    /// what is said ahead, nothing more is.
    fn left(&mut self, offence: bool, reply: Reply) -> Stop {
        self.session.deaf |= offence;
        self.session.lost_while_idle = true;
        self.mind_deafness();
        Stop { step: Step::Envelope, reply }
    }

    /// A session that is lost with the first letter that was announced in it may be lost so each time.
    fn mind_deafness(&mut self) {
        self.session.deaf |= self.ahead && self.session.lost_while_idle && self.session.letters == 1;
    }

    /// The server spoke, closed or stalled within the content: nothing was delivered, and it may have said why.
    async fn broke_off(&mut self, accepted: &[usize], broken: Option<Broken>) -> Stop {
        let dialogue = &mut self.session.dialogue;
        let within = if broken.is_none() { dialogue.deadlines.reply } else { LAST_WORDS };
        let stalled = matches!(broken, Some(Broken::TimedOut(_)));
        let (class, reply) =
            match (broken, if stalled { None } else { Some(dialogue.reply(within, self.log).await) }) {
                (_, Some(Ok(raw))) => {
                    let reply = dialogue.stored(&raw);
                    (refusal(&reply).unwrap_or(Class::Retry), reply)
                }
                (None, Some(Err(broken))) | (Some(broken), _) => (Class::Retry, dialogue.absent(&broken)),
                (None, None) => (Class::Retry, Reply::absent("the content was broken off")),
            };
        self.ledger.settle_all(accepted, class, Step::Content, &reply);
        Stop { step: Step::Content, reply: Reply::absent("the session ended within the content") }
    }

    /// Writes what was added, and only then notes it: the server works meanwhile.
    async fn flush(&mut self, step: Step) -> Result<(), Stop> {
        let Session { dialogue, out, .. } = &mut *self.session;
        let deadline = Instant::now() + dialogue.deadlines.reply;
        let written = dialogue.wire.write(out, deadline).await;
        self.note_said();
        record_count(self.log, "wrote", self.session.out.len());
        written.map_err(|broken| self.stop(step, &broken))
    }

    /// Notes the commands that were said.
    fn note_said(&self) {
        for line in self.session.out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.log.record(EntryKind::Client, String::from_utf8_lossy(line.trim_ascii_end()));
        }
    }

    /// One reply. With 421 the session is over, whatever was asked.
    async fn hear(&mut self, step: Step) -> Result<Reply, Stop> {
        let mut within = self.session.dialogue.deadlines.reply;
        let unheard = self.ahead && !self.answered;
        if unheard {
            within = within.min(ANSWERED_WITHIN);
        }
        let raw = match self.session.dialogue.reply(within, self.log).await {
            Ok(raw) => raw,
            Err(broken) => {
                if unheard && matches!(&broken, Broken::TimedOut(lines) if lines.is_empty()) {
                    // A server that has not heard what came with the dot.
                    return Err(self.left(true, self.session.dialogue.absent(&broken)));
                }
                return Err(self.stop(step, &broken));
            }
        };
        let reply = self.session.dialogue.stored(&raw);
        if reply.code == CLOSING {
            self.note_lost();
            return Err(Stop { step, reply });
        }
        self.answered = true;
        Ok(reply)
    }

    fn stop(&mut self, step: Step, broken: &Broken) -> Stop {
        if broken.is_gone() {
            self.note_lost();
        }
        Stop { step, reply: self.session.dialogue.absent(broken) }
    }

    /// Gone before the first answer on a session that carried letters before: the server had given it up.
    fn note_lost(&mut self) {
        self.session.lost_while_idle = self.session.letters > 0 && !self.answered;
        self.mind_deafness();
    }
}

/// What a reply other than the expected one means; `None` where it is nonsense here.
fn refusal(reply: &Reply) -> Option<Class> {
    if reply.is_transient() {
        Some(Class::Retry)
    } else if reply.is_permanent() {
        Some(Class::Refused)
    } else {
        None
    }
}

/// "Too many recipients" (RFC 5321 4.5.3.1.10): 452, from old servers 552. Both codes have other meanings as well, a
/// full mailbox above all, told apart by the enhanced code (RFC 3463) or the words.
fn is_too_many(reply: &Reply) -> bool {
    let says_so = || reply.text.to_ascii_lowercase().contains("too many");
    match (reply.code, reply.enhanced_code.as_str()) {
        (452 | 552, "4.5.3" | "5.5.3") | (452, "") => true,
        (452 | 552, _) => says_so(),
        _ => false,
    }
}

/// The letter's lines, at the level that shows them.
fn show_lines(content: &[u8], log: &Transcript) {
    if !log.keeps(EntryKind::Data) {
        return;
    }
    let mut shown = 0;
    let lines = content[..content.len().min(MAX_SHOWN_BYTES)].split_inclusive(|byte| *byte == b'\n');
    for line in lines.take(MAX_SHOWN_LINES) {
        shown += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        log.record(EntryKind::Data, String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
    }
    if shown < content.len() {
        log.record(EntryKind::Data, format!("<{} bytes more>", content.len() - shown));
    }
}
