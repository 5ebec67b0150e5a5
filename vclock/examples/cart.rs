//! Shopping carts in two stores, one of which crashes; clients hold nothing but tokens.
//!
//! ```text
//! cargo run --example cart
//! ```

use gramme_vclock::{Actor, GrowableContext, GrowableSiblings, Hlc, Minter, SealKey, Stamp};
use std::error::Error;

const SECRET: SealKey = SealKey(*b"of this cluster!");
const CLUSTER: u64 = 7;

/// A value and when it was written, for whoever must pick one.
type Cart = (Stamp, &'static str);

/// One store, and of its keys the one under `cart:42`.
struct Store {
    object: GrowableSiblings<Cart>,
    minter: Minter,
    clock: Hlc,
    /// What a crash leaves: the object as last synced, and the clock's floor.
    disk: (GrowableSiblings<Cart>, Stamp),
}

impl Store {
    /// Opens what is on disk. `random` names this open of the store, and no other.
    fn open(disk: (GrowableSiblings<Cart>, Stamp), random: u64) -> Store {
        Store { object: disk.0.clone(), minter: Minter::new(Actor(random)), clock: Hlc::new(disk.1), disk }
    }

    /// Replaces what the token's holder was shown, and answers a token that covers the new cart too.
    fn put(
        &mut self,
        token: Option<&str>,
        cart: &'static str,
        wall_ms: u64,
    ) -> Result<String, Box<dyn Error>> {
        let context = self.write(token, cart, wall_ms)?;
        self.sync(); // before the answer
        Ok(context.to_token(&SECRET, CLUSTER, b"cart:42")?)
    }

    /// Only in memory so far.
    fn write(
        &mut self,
        token: Option<&str>,
        cart: &'static str,
        wall_ms: u64,
    ) -> Result<GrowableContext, Box<dyn Error>> {
        let shown = match token {
            Some(token) => GrowableContext::open(token.as_bytes(), &SECRET, CLUSTER, b"cart:42")?,
            None => GrowableContext::default(),
        };
        // Past whatever it replaces, even if that was stamped by a clock far ahead.
        let stamp = self.clock.tick_past(wall_ms, shown.stamp);
        // Not before: the clock may have followed that one.
        if let Some(floor) = self.clock.reserve(wall_ms) {
            self.disk.1 = floor; // synced, and only then is the stamp used
            self.clock.reserved(floor);
        }
        let written = self.object.write(&shown.seen, &mut self.minter, (stamp, cart))?;
        Ok(GrowableContext { seen: written.context, stamp })
    }

    fn sync(&mut self) {
        self.disk.0 = self.object.clone();
    }

    /// All carts that nobody has replaced, and a token for a write that does.
    fn get(&self) -> Result<(Vec<&'static str>, String), Box<dyn Error>> {
        let stamp = self.object.iter().map(|(_, (stamp, _))| *stamp).max().unwrap_or_default();
        let context = GrowableContext { seen: self.object.seen().clone(), stamp };
        let carts = self.object.iter().map(|(_, (_, cart))| *cart).collect();
        Ok((carts, context.to_token(&SECRET, CLUSTER, b"cart:42")?))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let empty = || (GrowableSiblings::new(), Stamp::ZERO);
    let (mut a, mut b) = (Store::open(empty(), 0x6c1f_93d0), Store::open(empty(), 0xe5a7_0b42));

    let token = a.put(None, "bread", 1_000)?;
    println!("token: {token}");
    let Ok(_) = b.object.merge(a.object.clone());

    // The same cart goes on at both stores, which can't reach each other.
    let mine = a.put(Some(&token), "bread, milk", 2_000)?;
    let theirs = b.put(Some(&token), "bread, eggs", 7_000)?; // by its clock, which is five seconds ahead

    // A crash in the middle of a put: what was not synced is gone, so is the wall clock, and the store opens as a new actor.
    let lost = a.write(Some(&mine), "bread, milk, te", 2_100)?.stamp;
    a = Store::open(a.disk, 0x1d84_ee37);
    assert_eq!(a.get()?.0, ["bread, milk"]);
    a.put(Some(&mine), "bread, milk, tea", 0)?;
    let stamps: Vec<Stamp> = a.object.iter().map(|(_, (stamp, _))| *stamp).collect();
    assert!(stamps.len() == 1 && stamps[0] > lost, "no stamp is given twice, and none goes back");

    // Nor where the clock has followed the other's.
    let lost = a.write(Some(&theirs), "bread, eggs, te", 2_200)?.stamp;
    a = Store::open(a.disk, 0x90b2_57fa);
    assert!(a.write(None, "tea", 2_300)?.stamp > lost);
    a = Store::open(a.disk, 0x3e46_c8d1);

    let Ok(_) = a.object.merge(b.object.clone());
    let (carts, token) = a.get()?;
    println!("both stayed: {carts:?}");
    assert_eq!(carts, ["bread, milk, tea", "bread, eggs"]);

    a.put(Some(&token), "bread, milk, tea, eggs", 3_000)?;
    println!("reconciled: {:?}", a.get()?.0);
    assert_eq!(a.get()?.0, ["bread, milk, tea, eggs"]);

    // A token is good for its key alone, and for nobody who makes one up.
    assert!(GrowableContext::open(token.as_bytes(), &SECRET, CLUSTER, b"cart:43").is_err());
    Ok(())
}

#[test]
fn both_carts_stay_until_someone_has_seen_both() -> Result<(), Box<dyn Error>> {
    main()
}
