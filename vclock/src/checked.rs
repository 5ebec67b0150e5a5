//! Decoding that names what is wrong, whatever the format makes of errors.

use crate::malformed::Malformed;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// What was decoded, or why it is no such value.
///
/// The types of this crate refuse malformed parts when they are decoded, but some formats, postcard among them, drop the text that
/// says why. Decode `Checked<T>` in place of `T` to be told: what can't be read at all is the format's error, and what
/// can be read and is malformed has its name here. Both read the same bytes.
///
/// ```
/// use gramme_vclock::{Actor, Checked, FixedVersionVector, Malformed};
///
/// // Two entries of one actor.
/// let entries: &[(Actor, u64, ())] = &[(Actor(1), 5, ()), (Actor(1), 6, ())];
/// let bytes = postcard::to_allocvec(entries)?;
/// assert!(postcard::from_bytes::<FixedVersionVector<4>>(&bytes).is_err());
/// let Checked(decoded) = postcard::from_bytes::<Checked<FixedVersionVector<4>>>(&bytes)?;
/// assert_eq!(decoded, Err(Malformed::Repeated));
/// # Ok::<(), postcard::Error>(())
/// ```
///
/// It can be decoded for `Dot`, `Span`, `Stamp`, `DotSet`, `Context`, `Siblings`, `VersionVector` and its `Entry`. What is not this crate's to
/// check, the value of a sibling, is decoded as ever, and wrong as the format has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked<T>(pub Result<T, Malformed>);

impl<T> Checked<T> {
    /// The value, or an error of the format with the name as its text.
    pub(crate) fn or_custom<E: de::Error>(self) -> Result<T, E> {
        self.0.map_err(E::custom)
    }
}

/// Decodes a list and hands each element to `take`, up to the first that is malformed. What follows is read, but not kept: the
/// format goes on behind the list.
///
/// A claimed length is never believed: memory is taken as elements arrive.
pub(crate) fn each<'de, D, T>(
    deserializer: D,
    expecting: &'static str,
    take: impl FnMut(T) -> Result<(), Malformed>,
) -> Result<Result<(), Malformed>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Each { expecting, take, element: PhantomData })
}

struct Each<T, F> {
    expecting: &'static str,
    take: F,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), Malformed>> Visitor<'de> for Each<T, F> {
    type Value = Result<(), Malformed>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut well = Ok(());
        while let Some(element) = seq.next_element::<T>()? {
            if well.is_ok() {
                well = (self.take)(element);
            }
        }
        Ok(well)
    }
}
