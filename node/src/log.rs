//! Lines for the operator, on stderr. A lost stderr never ends a node.

use std::fmt::Arguments;
use std::io::Write;

/// Writes `gramme: …` and a newline in one write.
pub(crate) fn line(text: Arguments<'_>) {
    let _ = std::io::stderr().write_all(format!("gramme: {text}\n").as_bytes());
}

/// Like `eprintln!`, with the program's name before it.
macro_rules! say {
    ($($text:tt)*) => { $crate::log::line(format_args!($($text)*)) };
}
pub(crate) use say;
