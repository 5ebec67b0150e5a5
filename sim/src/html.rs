//! A timeline as one HTML page that needs nothing else: a lane for each node, time from top to bottom.

use crate::checker::Violation;
use crate::timeline::{Mark, Timeline};
use std::fmt::Write as _;

/// Rows at the most: the last ones, which led to the end.
const MOST: usize = 3000;
/// Pixels of a row, of the column of times, and between lanes.
const ROW: usize = 17;
const LEFT: usize = 110;
const LANE: usize = 90;

const STYLE: &str = "
body { font: 14px system-ui, sans-serif; margin: 1.5em; }
svg { font: 12px ui-monospace, monospace; }
.lane { stroke: #bbb; } .down { fill: #d9d9d9; }
.message { stroke: #3465a4; marker-end: url(#tip); } .cut { stroke: #cc0000; stroke-dasharray: 3 3; }
.mended { stroke: #4e9a06; stroke-dasharray: 3 3; } .asked { fill: #4e9a06; } .did { fill: #75507b; }
.time { fill: #888; } .fault { fill: #a40000; } .violation { fill: #cc0000; font-weight: bold; }
";

/// The page.
#[must_use]
pub fn page(title: &str, nodes: usize, timeline: &Timeline, violation: Option<&Violation>) -> String {
    let marks = timeline.marks();
    let marks = &marks[marks.len().saturating_sub(MOST)..];
    let text_at = LEFT + nodes * LANE + 10;
    let y = |row: usize| 40 + row * ROW;
    let x = |node: usize| LEFT + node * LANE + LANE / 2;
    let bottom = y(marks.len() + 1);
    let mut svg = String::new();
    down_times(&mut svg, marks, nodes, |node, from, to| {
        (x(node) - 9, y(from), y(to).saturating_sub(y(from)).max(ROW))
    });
    for node in 0..nodes {
        let _ = write!(
            svg,
            "<text x='{0}' y='18' text-anchor='middle'>node {node}</text><line class='lane' x1='{0}' y1='26' x2='{0}' y2='{bottom}'/>",
            x(node)
        );
    }
    for (row, (at, mark, text)) in marks.iter().enumerate() {
        let y = y(row);
        let class = match *mark {
            Mark::Message(from, to) => {
                // The tip stays beside the lane.
                let to_x = if x(to) > x(from) { x(to) - 5 } else { x(to) + 5 };
                let _ = write!(svg, "<line class='message' x1='{}' y1='{y}' x2='{to_x}' y2='{y}'/>", x(from));
                "message-text"
            }
            Mark::Link(from, to, cut) => {
                let class = if cut { "cut" } else { "mended" };
                let _ =
                    write!(svg, "<line class='{class}' x1='{}' y1='{y}' x2='{}' y2='{y}'/>", x(from), x(to));
                if cut { "fault" } else { "note" }
            }
            Mark::Client(node) => {
                let _ = write!(svg, "<circle class='asked' cx='{}' cy='{y}' r='5'/>", x(node));
                "asked"
            }
            Mark::Did(node) => {
                let _ =
                    write!(svg, "<rect class='did' x='{}' y='{}' width='8' height='8'/>", x(node) - 4, y - 4);
                "did"
            }
            Mark::Down(_) => "fault",
            Mark::Answer | Mark::Up(_) | Mark::Note => "note",
        };
        let baseline = y + 4;
        let _ = write!(
            svg,
            "<text class='time' x='4' y='{baseline}'>{at}</text><text class='{class}' x='{text_at}' y='{baseline}'>{}</text>",
            escaped(text)
        );
    }
    if let Some(violation) = violation {
        let _ = write!(
            svg,
            "<text class='violation' x='{LEFT}' y='{}'>{}</text>",
            bottom + 4,
            escaped(&violation.to_string())
        );
    }
    let widest = marks.iter().map(|(.., text)| text.chars().count()).max().unwrap_or(0);
    let (width, height) = (text_at + widest.max(80) * 8, bottom + 30);
    let (title, left_out) = (escaped(title), timeline.marks().len() - marks.len());
    let verdict = match violation {
        Some(violation) => format!("<p class='violation'>{}</p>", escaped(&violation.to_string())),
        None => String::from("<p>No promise was broken.</p>"),
    };
    format!(
        "<!doctype html>
<html lang='en'><meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>
<h1>{title}</h1>{verdict}
<p>Time runs down, a row for each event; arrows are messages as they arrive, circles clients' requests, squares what a node stores or
drops; grey: the node is down. {left_out} earlier rows are left out.</p>
<svg width='{width}' height='{height}' xmlns='http://www.w3.org/2000/svg'>
<defs><marker id='tip' markerWidth='7' markerHeight='6' refX='6' refY='3' orient='auto'><path d='M0,0 L7,3 L0,6 z' fill='#3465a4'/></marker></defs>
{svg}</svg></html>
"
    )
}

/// A grey bar for each time that a node was down.
fn down_times(
    svg: &mut String,
    marks: &[(crate::time::Time, Mark, String)],
    nodes: usize,
    place: impl Fn(usize, usize, usize) -> (usize, usize, usize),
) {
    for node in 0..nodes {
        let mut since = None;
        let mut bar = |from: usize, to: usize| {
            let (x, y, height) = place(node, from, to);
            let _ = write!(svg, "<rect class='down' x='{x}' y='{y}' width='18' height='{height}'/>");
        };
        for (row, (_, mark, _)) in marks.iter().enumerate() {
            match *mark {
                Mark::Down(other) if other == node => since = since.or(Some(row)),
                Mark::Up(other) if other == node => {
                    if let Some(from) = since.take() {
                        bar(from, row);
                    }
                }
                _ => {}
            }
        }
        if let Some(from) = since {
            bar(from, marks.len());
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;
    use bytes::Bytes;

    #[test]
    fn a_page_shows_who_was_down_and_needs_nothing_from_outside() {
        let mut timeline = Timeline::new(Bytes::from_static(b"k"));
        timeline.mark(Time(1), Mark::Down(1), "node 1 goes down <Kill>");
        timeline.mark(Time(2), Mark::Message(0, 2), "read");
        timeline.mark(Time(3), Mark::Up(1), "node 1 starts");
        let page = page("seed 7", 3, &timeline, None);
        assert_eq!(page.matches("class='down'").count(), 1);
        assert_eq!(page.matches("class='message'").count(), 1);
        assert!(page.contains("&lt;Kill&gt;") && page.contains("No promise was broken"));
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("@import"));
    }
}
