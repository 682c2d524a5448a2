//! `bench/results.svg`: how far each row is from its bar, on a logarithmic axis. The line in the middle is the bar; a
//! row that ends left of it holds, and by how much is its distance.

use super::{Entry, figure};
use crate::Result;
use std::fmt::Write;

/// Where the axis begins and ends, as powers of two of (ratio / bar).
const AXIS: std::ops::RangeInclusive<i32> = -4..=2;
const LEFT: f64 = 220.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 64.0;
const STEP: f64 = 26.0;
const WIDTH: f64 = 980.0;

/// The whole drawing.
///
/// # Errors
/// Never; writing to a string can fail only in type.
pub(super) fn drawing(entries: &[Entry]) -> Result<String> {
    let bottom = TOP + STEP * entries.len() as f64;
    let height = bottom + 30.0;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\" fill=\"#222222\">Distance from the bar (left of 1 holds)</text>"
    )?;
    for power in AXIS {
        let x = position(2f64.powi(power));
        let (colour, width) = if power == 0 { ("#222222", 2) } else { ("#dddddd", 1) };
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666666\">{}</text>",
            TOP - 8.0,
            TOP - 14.0,
            2f64.powi(power),
        )?;
    }
    for (index, entry) in entries.iter().enumerate() {
        let y = TOP + STEP * (index as f64 + 0.5);
        let colour = if entry.holds() { "#2e7d32" } else { "#c62828" };
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#222222\">{}</text>",
            LEFT - 12.0,
            y + 4.5,
            entry.row.id
        )?;
        // A row whose bar is nought lies on the bar or has no place on the axis; its figure says enough.
        if let Some(distance) = entry.outcome.as_ref().ok().and_then(|outcome| entry.bar.distance(outcome)) {
            let (bar, end) = (position(1.0), position(distance));
            writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\" fill-opacity=\"0.55\"/>\n\
                 <circle cx=\"{end:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>",
                bar.min(end),
                y - 6.0,
                (bar - end).abs(),
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            RIGHT + 16.0,
            y + 4.5,
            figures(entry)
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Where `distance` lies on the axis; what is beyond its ends lies at them.
fn position(distance: f64) -> f64 {
    let (low, high) = (f64::from(*AXIS.start()), f64::from(*AXIS.end()));
    let power = if distance > 0.0 { distance.log2().clamp(low, high) } else { low };
    LEFT + (power - low) / (high - low) * (RIGHT - LEFT)
}

/// The row's figures in words.
fn figures(entry: &Entry) -> String {
    match (entry.ratio(), entry.ours()) {
        (Some(ratio), _) => format!("{ratio:.3}x, bar {}x", entry.bar.value()),
        (None, Some(_)) if entry.note().is_some() => "no peer".to_owned(),
        (None, Some(ours)) => format!("{}, bar {}", figure(ours), entry.bar.value()),
        (None, None) => "not measured".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use crate::row::{Bar, Outcome, Peer};

    #[test]
    fn the_axis_is_logarithmic_and_ends() {
        assert_eq!(position(1.0) - position(0.5), position(2.0) - position(1.0));
        assert_eq!(position(0.0), LEFT);
        assert_eq!(position(1e9), RIGHT);
    }

    #[test]
    fn every_row_is_drawn_whatever_came_of_it() {
        let outcomes = [
            Ok(Outcome { ours: 1.0, peer: Peer::Measured(2.0), n: 7 }),
            Ok(Outcome { ours: 1.0, peer: Peer::Missing("no tcc".into()), n: 7 }),
            Ok(Outcome { ours: 0.0, peer: Peer::None, n: 7 }),
            Err("it crashed".to_owned()),
        ];
        let entries: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| Entry { row: &crate::rows::ALL[0], bar: Bar::Ratio(1.0), outcome })
            .collect();
        let svg = drawing(&entries).unwrap();
        assert_eq!(svg.matches("first.hello-exe").count(), 4);
        assert!(svg.contains("0.500x, bar 1x") && svg.contains("no peer") && svg.contains("not measured"));
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>\n"));
    }
}
