//! How many objects may be under way at one time, when their sizes are known only afterwards.

/// So many of a usual object as fit into a number of bytes, one at the least. It begins with one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    bytes: usize,
    most: usize,
    /// Bytes of a usual object.
    usual: usize,
}

impl Window {
    pub(crate) const fn new(bytes: usize, most: usize) -> Window {
        Window { bytes, most, usual: bytes }
    }

    pub(crate) fn room(&self) -> usize {
        (self.bytes / self.usual.max(1)).clamp(1, self.most)
    }

    /// An object had this size. Large ones count at once, small ones little by little.
    pub(crate) fn saw(&mut self, size: usize) {
        self.usual = size.max(self.usual - self.usual / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_slowly_and_closes_at_once() {
        let mut window = Window::new(1000, 32);
        assert_eq!(window.room(), 1);
        let rooms: [usize; 20] = core::array::from_fn(|_| {
            window.saw(10);
            window.room()
        });
        assert!(rooms.is_sorted() && rooms[3] < 8 && rooms[19] == 32, "{rooms:?}");
        window.saw(700);
        assert_eq!(window.room(), 1);
        window.saw(0);
        Window::new(0, 4).saw(0);
        assert_eq!(Window::new(0, 4).room(), 1);
    }
}
