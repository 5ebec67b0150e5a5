//! Storage behind the sets: one implementation of each type serves both a fixed capacity and a growing one.

use core::cmp::Ordering;
use core::convert::Infallible;
use core::error::Error;
use core::fmt;

/// A fixed-capacity form has no room left. The operation that answers it changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("capacity is used up; nothing was changed")
    }
}

impl Error for Full {}

impl From<Infallible> for Full {
    fn from(never: Infallible) -> Full {
        match never {}
    }
}

/// A list that the types of this crate keep their elements in.
///
/// It is implemented for [`heapless::Vec`] (fixed capacity, answers [`Full`]) and, with feature `alloc`, for
/// `alloc::vec::Vec` and `InlineVec` (both grow, and their `Full` is [`Infallible`], so
/// `let Ok(()) = set.insert(dot);` compiles). It can't be implemented elsewhere.
pub trait Buf<T>: sealed::Sealed + Default + IntoIterator<Item = T> {
    /// What a list without room answers.
    type Full: Error + Copy;

    /// An empty list that grows to `len` elements, if it may, without taking memory again.
    #[must_use]
    fn with_room(len: usize) -> Self {
        let _ = len;
        Self::default()
    }

    /// The elements.
    fn as_slice(&self) -> &[T];
    /// The elements, to be changed in place.
    fn as_mut_slice(&mut self) -> &mut [T];
    /// Whether the list can hold `len` elements in all.
    fn fits(&self, len: usize) -> Result<(), Self::Full>;
    /// Appends an element; a full list stays as it is.
    fn push(&mut self, item: T) -> Result<(), Self::Full>;
    /// Shortens the list to at most `len` elements.
    fn truncate(&mut self, len: usize);
    /// Keeps the elements for which `keep` answers true, in order.
    fn retain<F: FnMut(&T) -> bool>(&mut self, keep: F);

    /// Puts an element before position `at`; a full list stays as it is.
    ///
    /// # Panics
    /// If `at` is past the end.
    fn insert(&mut self, at: usize, item: T) -> Result<(), Self::Full> {
        assert!(at <= self.as_slice().len(), "insertion past the end");
        self.push(item)?;
        self.as_mut_slice()[at..].rotate_right(1);
        Ok(())
    }

    /// Takes out the elements at `from..to`.
    ///
    /// # Panics
    /// If the range is not within the list.
    fn remove_range(&mut self, from: usize, to: usize) {
        let len = self.as_slice().len();
        self.as_mut_slice()[from..].rotate_left(to - from);
        self.truncate(len - (to - from));
    }
}

mod sealed {
    pub trait Sealed {}

    impl<T, const N: usize> Sealed for heapless::Vec<T, N> {}
    #[cfg(feature = "alloc")]
    impl<T> Sealed for alloc::vec::Vec<T> {}
    #[cfg(feature = "alloc")]
    impl<T, const N: usize> Sealed for super::InlineVec<T, N> {}
}

/// Makes a list the same as a longer one, which must fit.
pub(crate) fn become_longer<T: Copy, B: Buf<T>>(list: &mut B, longer: &[T]) -> Result<(), B::Full> {
    let (head, tail) = longer.split_at(list.as_slice().len());
    if let ([a, b], [x, y]) = (list.as_mut_slice(), head) {
        // Of so few, as of a key's replicas often, a call to copy takes longer than the copy.
        (*a, *b) = (*x, *y);
    } else {
        list.as_mut_slice().copy_from_slice(head);
    }
    tail.iter().try_for_each(|item| list.push(*item))
}

/// Adds those of `theirs` that are missing in a list, so many: both are sorted by `order`, and there is room. They go in from
/// the back: each element moves once, and nothing is written over before it has moved.
#[inline]
pub(crate) fn insert_missing<T: Copy, B: Buf<T>>(
    list: &mut B,
    theirs: &[T],
    missing: usize,
    order: impl Fn(&T, &T) -> Ordering,
) -> Result<(), B::Full> {
    let (mut at, mut gap) = (list.as_slice().len(), missing);
    for their in &theirs[theirs.len() - missing..] {
        list.push(*their)?;
    }
    let list = list.as_mut_slice();
    for their in theirs.iter().rev() {
        while at > 0 && order(&list[at - 1], their).is_gt() {
            at -= 1;
            list[at + gap] = list[at];
        }
        if at == 0 || order(&list[at - 1], their).is_lt() {
            gap -= 1;
            list[at + gap] = *their;
            if gap == 0 {
                break;
            }
        }
    }
    Ok(())
}

impl<T, const N: usize> Buf<T> for heapless::Vec<T, N> {
    type Full = Full;

    fn as_slice(&self) -> &[T] {
        self
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        self
    }

    fn fits(&self, len: usize) -> Result<(), Full> {
        if len <= N { Ok(()) } else { Err(Full) }
    }

    fn push(&mut self, item: T) -> Result<(), Full> {
        heapless::Vec::push(self, item).map_err(|_| Full)
    }

    fn truncate(&mut self, len: usize) {
        heapless::Vec::truncate(self, len);
    }

    fn retain<F: FnMut(&T) -> bool>(&mut self, keep: F) {
        heapless::Vec::retain(self, keep);
    }
}

#[cfg(feature = "alloc")]
impl<T> Buf<T> for alloc::vec::Vec<T> {
    type Full = Infallible;

    fn with_room(len: usize) -> Self {
        alloc::vec::Vec::with_capacity(len)
    }

    fn as_slice(&self) -> &[T] {
        self
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        self
    }

    fn fits(&self, _: usize) -> Result<(), Infallible> {
        Ok(())
    }

    fn push(&mut self, item: T) -> Result<(), Infallible> {
        alloc::vec::Vec::push(self, item);
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        alloc::vec::Vec::truncate(self, len);
    }

    fn retain<F: FnMut(&T) -> bool>(&mut self, keep: F) {
        alloc::vec::Vec::retain(self, keep);
    }
}

#[cfg(feature = "alloc")]
pub use inline::{InlineVec, InlineVecIntoIter};

#[cfg(feature = "alloc")]
mod inline {
    use super::Buf;
    use alloc::vec::Vec;
    use core::convert::Infallible;
    use core::hash::{Hash, Hasher};
    use core::iter::FusedIterator;
    use core::ops::{Deref, DerefMut};
    use core::{fmt, mem};

    /// A list that keeps its first `N` elements in place and moves to the heap past them. It is compared and hashed as its
    /// elements are, wherever they stand.
    #[derive(Clone)]
    pub struct InlineVec<T, const N: usize>(Place<T, N>);

    #[derive(Clone)]
    enum Place<T, const N: usize> {
        Inline(heapless::Vec<T, N>),
        Heap(Vec<T>),
    }

    /// Tells the compiler that the branch which calls it is seldom taken.
    #[cold]
    #[inline]
    fn seldom() {}

    impl<T, const N: usize> InlineVec<T, N> {
        /// An empty list; takes no memory from the allocator.
        pub const fn new() -> Self {
            InlineVec(Place::Inline(heapless::Vec::new()))
        }

        /// Appends an element on the heap.
        #[cold]
        #[inline(never)]
        fn push_outside(&mut self, item: T) {
            match &mut self.0 {
                Place::Heap(list) => list.push(item),
                Place::Inline(list) => {
                    let mut heap = Vec::with_capacity(2 * N.max(2));
                    heap.extend(mem::take(list));
                    heap.push(item);
                    self.0 = Place::Heap(heap);
                }
            }
        }

        /// Whether the elements stand on the heap.
        pub const fn spilled(&self) -> bool {
            matches!(self.0, Place::Heap(_))
        }
    }

    impl<T, const N: usize> Default for InlineVec<T, N> {
        fn default() -> Self {
            Self::new()
        }
    }

    impl<T, const N: usize> Deref for InlineVec<T, N> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            self.as_slice()
        }
    }

    impl<T, const N: usize> DerefMut for InlineVec<T, N> {
        fn deref_mut(&mut self) -> &mut [T] {
            self.as_mut_slice()
        }
    }

    impl<T: PartialEq, const N: usize> PartialEq for InlineVec<T, N> {
        fn eq(&self, other: &Self) -> bool {
            self.as_slice() == other.as_slice()
        }
    }

    impl<T: Eq, const N: usize> Eq for InlineVec<T, N> {}

    impl<T: Hash, const N: usize> Hash for InlineVec<T, N> {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.as_slice().hash(state);
        }
    }

    impl<T: fmt::Debug, const N: usize> fmt::Debug for InlineVec<T, N> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_list().entries(self.as_slice()).finish()
        }
    }

    impl<T, const N: usize> Buf<T> for InlineVec<T, N> {
        type Full = Infallible;

        fn with_room(len: usize) -> Self {
            if len <= N { Self::new() } else { InlineVec(Place::Heap(Vec::with_capacity(len))) }
        }

        #[inline]
        fn as_slice(&self) -> &[T] {
            match &self.0 {
                Place::Inline(list) => list,
                Place::Heap(list) => {
                    seldom();
                    list
                }
            }
        }

        #[inline]
        fn as_mut_slice(&mut self) -> &mut [T] {
            match &mut self.0 {
                Place::Inline(list) => list,
                Place::Heap(list) => {
                    seldom();
                    list
                }
            }
        }

        fn fits(&self, _: usize) -> Result<(), Infallible> {
            Ok(())
        }

        #[inline]
        fn push(&mut self, item: T) -> Result<(), Infallible> {
            if let Place::Inline(list) = &mut self.0 {
                if let Err(item) = list.push(item) {
                    self.push_outside(item);
                }
            } else {
                self.push_outside(item);
            }
            Ok(())
        }

        fn truncate(&mut self, len: usize) {
            match &mut self.0 {
                Place::Inline(list) => list.truncate(len),
                Place::Heap(list) => list.truncate(len),
            }
        }

        fn retain<F: FnMut(&T) -> bool>(&mut self, keep: F) {
            match &mut self.0 {
                Place::Inline(list) => list.retain(keep),
                Place::Heap(list) => list.retain(keep),
            }
        }
    }

    impl<T, const N: usize> IntoIterator for InlineVec<T, N> {
        type Item = T;
        type IntoIter = InlineVecIntoIter<T, N>;

        fn into_iter(self) -> InlineVecIntoIter<T, N> {
            match self.0 {
                Place::Inline(list) => InlineVecIntoIter(Drain::Inline(list.into_iter())),
                Place::Heap(list) => InlineVecIntoIter(Drain::Heap(list.into_iter())),
            }
        }
    }

    impl<'a, T, const N: usize> IntoIterator for &'a InlineVec<T, N> {
        type Item = &'a T;
        type IntoIter = core::slice::Iter<'a, T>;

        fn into_iter(self) -> core::slice::Iter<'a, T> {
            self.as_slice().iter()
        }
    }

    /// Iterator over the elements that an [`InlineVec`] held.
    pub struct InlineVecIntoIter<T, const N: usize>(Drain<T, N>);

    enum Drain<T, const N: usize> {
        Inline(<heapless::Vec<T, N> as IntoIterator>::IntoIter),
        Heap(alloc::vec::IntoIter<T>),
    }

    impl<T, const N: usize> Iterator for InlineVecIntoIter<T, N> {
        type Item = T;

        fn next(&mut self) -> Option<T> {
            match &mut self.0 {
                Drain::Inline(rest) => rest.next(),
                Drain::Heap(rest) => rest.next(),
            }
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            let left = match &self.0 {
                Drain::Inline(rest) => rest.len(),
                Drain::Heap(rest) => rest.len(),
            };
            (left, Some(left))
        }
    }

    impl<T, const N: usize> DoubleEndedIterator for InlineVecIntoIter<T, N> {
        fn next_back(&mut self) -> Option<T> {
            match &mut self.0 {
                Drain::Inline(rest) => rest.next_back(),
                Drain::Heap(rest) => rest.next_back(),
            }
        }
    }

    impl<T, const N: usize> ExactSizeIterator for InlineVecIntoIter<T, N> {}

    impl<T, const N: usize> FusedIterator for InlineVecIntoIter<T, N> {}

    impl<T, const N: usize> fmt::Debug for InlineVecIntoIter<T, N> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("InlineVecIntoIter").finish_non_exhaustive()
        }
    }
}
