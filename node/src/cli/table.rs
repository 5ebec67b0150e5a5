//! Text in columns.

use serde_json::Value;
use std::fmt::Write as _;

/// Rows with their columns aligned, every line after `indent`. The first row is usually the heads.
pub(crate) fn aligned<R: AsRef<[String]>>(rows: &[R], indent: &str) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.as_ref().get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.as_ref().iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A JSON document for people: plain members as `name  value`, lists of objects as tables under their names.
pub(crate) fn render(document: &Value) -> String {
    let mut out = String::new();
    match document {
        Value::Object(members) => {
            let plain: Vec<[String; 2]> = members
                .iter()
                .filter(|(_, value)| !is_table(value))
                .map(|(name, value)| [words(name), cell(value)])
                .collect();
            out.push_str(&aligned(&plain, ""));
            for (name, value) in members.iter().filter(|(_, value)| is_table(value)) {
                let _ = write!(out, "\n{}\n", words(name));
                out.push_str(&table(value));
            }
        }
        list if is_table(list) => out.push_str(&table(list)),
        other => {
            let _ = writeln!(out, "{}", cell(other));
        }
    }
    out
}

fn is_table(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_object))
}

fn table(list: &Value) -> String {
    let items: Vec<_> = list.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let mut heads: Vec<&String> = Vec::new();
    for name in items.iter().flat_map(|item| item.keys()) {
        if !heads.contains(&name) {
            heads.push(name);
        }
    }
    let mut rows = vec![heads.iter().map(|name| words(name)).collect::<Vec<String>>()];
    for item in items {
        rows.push(heads.iter().map(|name| item.get(*name).map_or_else(|| "-".to_owned(), cell)).collect());
    }
    aligned(&rows, "  ")
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // What a peer or a client chose must not move our cursor.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.as_i64().is_none() && number.as_u64().is_none() => format!("{float:.2}"),
            _ => number.to_string(),
        },
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{}={}", words(name), cell(value)))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_then_tables() {
        let document = json!({
            "ready": true,
            "node_id": "00ff",
            "phi": 0.5,
            "peers": [{"id": "a", "alive": true}, {"id": "bbbbbb", "alive": false, "why": "silent"}],
        });
        let mut lines: Vec<String> = render(&document).lines().map(str::to_owned).collect();
        let peers = lines.split_off(5);
        lines.sort();
        assert_eq!(lines, ["", "node id  00ff", "peers", "phi      0.50", "ready    yes"]);
        assert_eq!(peers.len(), 3, "a head and two rows");
        assert!(peers[2].contains("bbbbbb") && peers[2].contains("silent") && peers[1].contains('-'));
    }

    #[test]
    fn a_terminal_is_not_steered_by_what_is_shown() {
        assert!(!render(&json!({"zone": "\u{1b}[2J"})).contains('\u{1b}'));
    }
}
