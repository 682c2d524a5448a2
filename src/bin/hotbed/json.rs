//! Writing JSON, on one line.

use hotbed::{Layer, SymbolKind};
use std::fmt::Write;

/// An object of fields whose values are JSON.
pub(crate) fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// An array of values that are JSON.
pub(crate) fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}

/// A string of JSON, or null.
pub(crate) fn optional(text: &Option<String>) -> String {
    text.as_ref().map_or_else(|| "null".to_owned(), |text| string(text))
}

/// A string of JSON.
pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            // Writing to a String cannot fail.
            '\0'..=' ' if letter != ' ' => drop(write!(quoted, "\\u{:04x}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// What a kind of symbol is called.
pub(crate) fn kind_key(kind: SymbolKind) -> &'static str {
    match kind {
        SymbolKind::Function => "function",
        SymbolKind::Data => "variable",
        SymbolKind::Tls => "thread-local",
        SymbolKind::IndirectFunction => "indirect-function",
    }
}

/// What a layer is called.
pub(crate) fn layer_key(layer: Layer) -> &'static str {
    match layer {
        Layer::Unit => "unit",
        Layer::Host => "host",
        Layer::Fresh => "fresh",
        Layer::Images => "images",
        Layer::Process => "process",
        Layer::Archives => "archives",
        Layer::OnDemand => "on-demand",
        Layer::Runtime => "hotbed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted() {
        assert_eq!(string("a\"b\\c\n ä"), "\"a\\\"b\\\\c\\u000a ä\"");
        assert_eq!(object(&[("a", array(["1".to_owned(), string("x")].into_iter()))]), "{\"a\":[1,\"x\"]}");
    }
}
