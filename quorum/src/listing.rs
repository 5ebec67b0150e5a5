//! Listings for peers that pull: pages of keys with the digests of their objects, or with the objects themselves.

use crate::engine::Engine;
use crate::input::{ListCursor, ListId, Page, Place};
use crate::message::{CallId, Message, Refusal};
use crate::outcome::Held;
use crate::planted::Bug;
use crate::pull::MAX_PULLS;
use crate::task::{Reader, Task};
use crate::time::Now;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{NodeId, SLOTS, Slot};

/// Keys listed at a time.
const PAGE: usize = 128;
/// Bytes of keys in a page; where keys are so long that there would be more, fewer are listed at a time. And bytes of objects
/// with it: the last one may go beyond, and a larger one is left out.
const PAGE_BYTES: usize = 256 << 10;
/// That many.
const SHORT_PAGE: usize = 4;
/// Listings for peers that wait for the disk.
const MAX_LISTINGS: usize = 64;

/// A listing for a peer.
#[derive(Debug)]
pub(crate) struct Listing {
    to: NodeId,
    call: CallId,
    slots: (u16, u16),
    cursor: Option<ListCursor>,
    limit: usize,
    /// With the objects, as far as there is room.
    objects: bool,
    /// When it was asked for, what is here would do as a source.
    source: bool,
}

/// A page whose objects are being read, one after the other.
#[derive(Debug)]
pub(crate) struct Gathering {
    listing: Listing,
    page: Page,
    /// Of its first keys; empty where it is left to the peer to ask for one.
    objects: Vec<Bytes>,
    bytes: usize,
}

impl Engine {
    pub(crate) fn list_for(
        &mut self,
        now: Now,
        to: NodeId,
        call: CallId,
        slots: (u16, u16),
        cursor: Option<ListCursor>,
        objects: bool,
    ) {
        let why = if slots.0 > slots.1 || slots.1 >= SLOTS {
            Refusal::Malformed
        } else if self.listings_of(to) >= MAX_PULLS
            || self.listings.len() + self.gatherings.len() >= MAX_LISTINGS
            || !self.grants(now, to)
        {
            Refusal::Overloaded
        } else {
            let source = Slot::new(slots.0).is_some_and(|slot| self.is_source(slot));
            return self.list_page(Listing { to, call, slots, cursor, limit: PAGE, objects, source });
        };
        self.out.send(to, Message::Refused { call, why });
    }

    fn listings_of(&self, peer: NodeId) -> usize {
        let listings = self.listings.values().chain(self.gatherings.values().map(|g| &g.listing));
        listings.filter(|listing| listing.to == peer).count()
    }

    fn list_page(&mut self, listing: Listing) {
        let (first, last) = (Place(listing.slots.0), Place(listing.slots.1));
        let id = self.out.list(first, last, listing.cursor, listing.limit);
        self.listings.insert(id, listing);
    }

    /// A page for a peer was read. `false` if the listing is for nobody else.
    pub(crate) fn listed_for(&mut self, id: ListId, page: &Option<Page>) -> bool {
        let Some(listing) = self.listings.remove(&id) else { return false };
        let Some(page) = page else {
            self.out.send(listing.to, Message::Refused { call: listing.call, why: Refusal::Unknown });
            return true;
        };
        let key_bytes = page.keys.iter().map(|(key, _)| key.len()).sum::<usize>();
        if listing.limit > SHORT_PAGE && key_bytes > PAGE_BYTES {
            self.list_page(Listing { limit: SHORT_PAGE, ..listing });
            return true;
        }
        let gathering = Gathering { listing, page: page.clone(), objects: Vec::new(), bytes: 0 };
        self.gatherings.insert(id, gathering);
        self.gather(id);
        true
    }

    /// Reads the next object of a page, or sends the page.
    fn gather(&mut self, id: ListId) {
        let full = self.replica.is_full();
        let Some(Gathering { listing, page, objects, bytes }) = self.gatherings.get(&id) else { return };
        let next = page.keys.get(objects.len()).map(|(key, _)| key.clone());
        if let Some(key) = next.filter(|_| listing.objects && *bytes < PAGE_BYTES && !full) {
            return self.replica.start(&mut self.out, &key, Task::Read(Reader::Listing(id)));
        }
        let Some(Gathering { listing, page, objects, .. }) = self.gatherings.remove(&id) else { return };
        let source = Slot::new(listing.slots.0).is_some_and(|slot| self.is_source(slot));
        let damaged = page.unreadable > 0 && !self.config.planted.is(Bug::UnreadableIgnored);
        let complete = source && listing.source;
        let (call, run, keys, next) = (listing.call, self.run(), page.keys, page.next);
        let bytes = keys.iter().map(|(key, _)| key.len() + size_of::<u64>()).sum::<usize>();
        self.granted(listing.to, bytes + objects.iter().map(Bytes::len).sum::<usize>());
        self.out.send(listing.to, Message::Listed { call, keys, objects, next, complete, damaged, run });
    }

    pub(crate) fn gathered(&mut self, id: ListId, held: Held) {
        let Some(gathering) = self.gatherings.get_mut(&id) else { return };
        let object = match held {
            Held::Object { encoded, .. } if encoded.len() <= PAGE_BYTES => encoded,
            // Asked for alone, the peer learns what there is to it.
            Held::Object { .. } | Held::Absent | Held::Unknown { .. } => Bytes::new(),
        };
        gathering.bytes += object.len();
        gathering.objects.push(object);
        self.gather(id);
    }
}
