//! Which letter is announced with the dot of the one before: it will almost surely be the next one over the same session.

use super::connection::Connection;
use super::history;
use super::in_hand::InHand;
use super::sender::Sender;
use super::worker::Worker;
use crate::store::queue::{Claim, Ready};

impl Worker {
    /// The letter behind the one in front, if nothing that is known now keeps it from going at once over the same session.
    pub(super) fn to_announce(
        &self,
        sender: &Sender,
        in_hand: &InHand,
        connection: &Connection,
    ) -> Option<Claim> {
        let goes_on = sender.pace().is_free()
            && !sender.is_in_trouble()
            && !self.stop.is_cancelled()
            && connection.carries_another(sender);
        if !goes_on {
            return None;
        }
        let claim = in_hand.second()?;
        let is_sure = sender.fits(&claim)
            && !claim.after_interruption
            && claim.ready.as_ref().is_some_and(Ready::is_fresh);
        if !is_sure {
            return None;
        }
        history::settled(claim, self.context.store.clock().now()).ok()
    }
}
