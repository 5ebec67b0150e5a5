//! Clients' requests reach their nodes, and answers their clients.

use super::{Answer, Happening, World};
use crate::checker::{Load, OpId};
use gramme_quorum::{Input, RequestId, Status};

impl World {
    /// A node takes a client's request, or says at once why not.
    pub(super) fn take(&mut self, node: usize, id: OpId) {
        let Some(before) = self.status(node) else { return };
        let congested = self.is_congested(node);
        let Status { requests, request_bytes, local, unsynced, .. } = before;
        let (copies, bytes) = (before.unsynced_copies, before.local_bytes);
        let before = Load { requests, request_bytes, local, unsynced, copies, bytes, congested };
        let op = self.checker.request(id).op.clone();
        let saving = self.nodes[node].paused_until >= self.now;
        self.said.clear();
        self.reaches(node, id);
        self.taking = Some(id);
        self.handle(node, Input::Client(RequestId(id.0), op));
        self.taking = None;
        let Some(after) = self.status(node) else { return };
        let said = self.said.drain(..).find(|(said, _)| *said == id);
        let at_once = said.map(|(_, reply)| reply);
        // While it writes down something of the cluster it leaves all else for later.
        if !saving {
            let elsewhere = self.forwarded.values().any(|forwarded| *forwarded == id);
            self.checker.took(self.now, id, before, elsewhere, at_once.as_ref());
        }
        self.checker.check_load(self.now, node, &after);
    }

    pub(super) fn answer(&mut self, id: OpId, answer: Answer) -> Happening {
        match &answer {
            Answer::Reply(reply) => self.checker.replied(self.now, id, reply),
            Answer::Refused => self.checker.refused(self.now, id),
            Answer::Lost => self.checker.lost(self.now, id),
        }
        if let Some(timeline) = &mut self.timeline {
            let reply = match &answer {
                Answer::Reply(reply) => Some(reply),
                Answer::Refused | Answer::Lost => None,
            };
            let key = self.checker.request(id).op.key();
            timeline.answered(self.now, &id.to_string(), key, reply);
        }
        Happening::Answered(id, answer)
    }
}
