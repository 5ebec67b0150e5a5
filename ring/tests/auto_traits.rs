//! Every type of the interface can go to another thread and be shared among them. The compiler derives that unasked, and
//! a field that lacks it would take it away as silently.

use gramme_ring::finger::{FingerTable, Hop, Place, Ring};
use gramme_ring::gossip::{Gossip, GossipError, Head, Message, Received, Record, Target, Told};
use gramme_ring::membership::{
    CommitError, MergeError, Merged, Progress, Proposal, StageError, Standing, VersionStanding,
};
use gramme_ring::token::{EqualPartitions, Token, TokenError, TokenRing, TokenTable};
use gramme_ring::transition::AdvanceError;
use gramme_ring::*;

const fn threads<T: Send + Sync + Unpin + 'static>() {}

// Whether this compiles is the test.
const _: () = {
    threads::<Checked<Layout>>();
    threads::<Malformed>();
    threads::<NodeId>();
    threads::<ParseNodeIdError>();
    threads::<Zone>();
    threads::<ZoneTooLong>();
    threads::<Member>();
    threads::<Slot>();
    threads::<Partition>();
    threads::<PartitionCount>();
    threads::<OwnerTable<'static>>();
    threads::<Owners<'static>>();
    threads::<TableError>();
    threads::<Layout>();
    threads::<LayoutError>();
    threads::<LayoutVersion>();
    threads::<Load>();
    threads::<Preference<'static>>();
    threads::<Plan<'static>>();
    threads::<Gain<'static>>();
    threads::<Loss>();
    threads::<NodeChange>();
    threads::<Membership>();
    threads::<ClusterId>();
    threads::<Change>();
    threads::<Standing>();
    threads::<Proposal>();
    threads::<Progress>();
    threads::<Merged>();
    threads::<VersionStanding>();
    threads::<StageError>();
    threads::<CommitError>();
    threads::<MergeError>();
    threads::<Transition<'static>>();
    threads::<Phase>();
    threads::<Step>();
    threads::<AdvanceError>();
    threads::<Gossip>();
    threads::<GossipError>();
    threads::<Message>();
    threads::<Told>();
    threads::<Received>();
    threads::<Record>();
    threads::<Head>();
    threads::<Target>();
    threads::<TokenRing>();
    threads::<TokenTable<'static>>();
    threads::<Token>();
    threads::<TokenError>();
    threads::<EqualPartitions>();
    threads::<FingerTable<'static>>();
    threads::<Ring<'static>>();
    threads::<Place>();
    threads::<Hop>();
};
