//! `hotbed image inspect` and `hotbed image verify`: what an image says about itself, and whether it is sound.

use crate::json::{array, kind_key, layer_key, object, optional, string};
use crate::{Status, console};
use hotbed::{
    CpuFeatures, ExportDescription, FunctionDescription, Image, ImageDependency, ImageDescription,
    ImportDescription, Layer, Metadata, SectionDescription, VariantDescription,
};
use hotbed_loader::image::choose;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// `hotbed image inspect FILE`, as text or as one object of JSON.
pub(crate) fn inspect(file: &Path, as_json: bool) -> Status {
    match Image::file(file).inspect() {
        Ok(image) => {
            let text = if as_json { json(&image) + "\n" } else { text(file, &image) };
            // Nobody is there to be told when this cannot be written.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Status::Success
        }
        Err(error) => console::fail(&error),
    }
}

/// `hotbed image verify FILE...`: a line for each.
pub(crate) fn verify(files: &[PathBuf]) -> Status {
    let mut status = Status::Success;
    for file in files {
        match Image::file(file).verify() {
            Ok(checksum) => {
                let line = format!("{}: sound, {}\n", file.display(), hex(&checksum));
                // As above.
                let _ = std::io::stdout().write_all(line.as_bytes());
            }
            Err(error) => status = console::fail(&error),
        }
    }
    status
}

/// For people: what there is little of first.
fn text(file: &Path, image: &ImageDescription) -> String {
    let Metadata { build, unit, triple, cpu, flags, inputs, entry } = &image.metadata;
    let bitcode_only = image.functions.iter().filter(|function| !function.compiled).count();
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{name:<11}{value}");
    };
    line("image", &file.display().to_string());
    line("name", image.name.as_deref().unwrap_or("-"));
    line("unit", unit);
    line("format", &format!("{}, written by Hotbed {build}", image.format));
    line("target", &format!("{triple}, {cpu}"));
    line("flags", &if flags.is_empty() { "-".to_owned() } else { flags.join(" ") });
    line("entry", entry.as_deref().unwrap_or("-"));
    line("size", &format!("{} bytes, {} in memory", image.size, image.memory));
    line("build id", &image.build_id.as_deref().map_or_else(|| "-".to_owned(), hex));
    line("checksum", &hex(&image.checksum));
    line("interface", &hex(&image.interface));
    line(
        "functions",
        &match image.functions.len() {
            0 => "all compiled".to_owned(),
            slots => format!("{slots} with slots, {bitcode_only} of them bitcode only"),
        },
    );
    let mut table = |name: &str, rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let _ = writeln!(out, "\n{name} ({})", rows.len());
            out += &aligned(&rows);
        }
    };
    let taken = taken(image);
    let variants = image.variants.iter().enumerate();
    table("variants", variants.map(|(at, variant)| variant_row(variant, taken == Some(at))).collect());
    table("inputs", inputs.iter().map(|(name, hash)| vec![hex(&hash[..8]), name.clone()]).collect());
    table("linked against", image.dependencies.iter().map(dependency_row).collect());
    table("needed libraries", image.needed.iter().map(|name| vec![name.clone()]).collect());
    table("sections", image.sections.iter().map(section_row).collect());
    table("exports", image.exports.iter().map(export_row).collect());
    table("imports", image.imports.iter().map(import_row).collect());
    let bitcode = image.functions.iter().filter(|function| !function.compiled);
    table("bitcode only", bitcode.map(|function| function_row(function, &image.sources)).collect());
    out
}

/// The place of the variant that this processor takes, if it can run one.
fn taken(image: &ImageDescription) -> Option<usize> {
    let requires: Vec<CpuFeatures> = image.variants.iter().map(|variant| variant.requires).collect();
    choose(&requires, CpuFeatures::host()).ok()
}

fn variant_row(variant: &VariantDescription, taken: bool) -> Vec<String> {
    let VariantDescription { requires, size, checksum, .. } = variant;
    let here = if taken { "taken here" } else { "" };
    vec![here.to_owned(), format!("{size} bytes"), hex(&checksum[..8]), requires.to_string()]
}

fn dependency_row(image: &ImageDependency) -> Vec<String> {
    let ImageDependency { name, interface, symbols } = image;
    vec![hex(&interface[..8]), format!("{} symbols used", symbols.len()), name.clone()]
}

fn section_row(section: &SectionDescription) -> Vec<String> {
    let SectionDescription { name, size, address, writable, executable, in_file, .. } = section;
    let access = match (address, writable, executable) {
        (None, ..) => "file only",
        (_, true, _) => "data",
        (_, _, true) => "code",
        _ => "read-only",
    };
    let zeros = if *in_file { "" } else { ", zeros" };
    let at = address.map_or_else(String::new, |address| format!("{address:#x}"));
    vec![name.clone(), size.to_string(), format!("{access}{zeros}"), at]
}

fn export_row(export: &ExportDescription) -> Vec<String> {
    let ExportDescription { name, demangled, version, kind, weak, size, compiled, identity, .. } = export;
    let mut what = kind_key(*kind).to_owned();
    if *weak {
        what += ", shared";
    }
    if !compiled {
        what += ", bitcode";
    }
    // So many digits tell those of a few images apart.
    let identity = identity.map_or_else(String::new, |identity| identity.to_string()[..12].to_owned());
    vec![what, size.to_string(), identity, symbol_name(name, demangled.as_deref(), version.as_deref())]
}

fn import_row(import: &ImportDescription) -> Vec<String> {
    let ImportDescription { name, demangled, version, weak, layer, from, .. } = import;
    let who = match (layer, from) {
        (Layer::Process | Layer::Images, Some(name)) => name.clone(),
        (Layer::Runtime, _) => "Hotbed".to_owned(),
        _ => "host or other units".to_owned(),
    };
    let may_be_missing = if *weak { ", if anybody" } else { "" };
    vec![format!("{who}{may_be_missing}"), symbol_name(name, demangled.as_deref(), version.as_deref())]
}

fn function_row(function: &FunctionDescription, sources: &[String]) -> Vec<String> {
    let source = sources.get(function.source as usize).cloned().unwrap_or_default();
    vec![source, function.name.clone().unwrap_or_else(|| "(no name)".to_owned())]
}

fn symbol_name(name: &str, demangled: Option<&str>, version: Option<&str>) -> String {
    let version = version.map_or_else(String::new, |version| format!("@{version}"));
    let demangled = demangled.map_or_else(String::new, |demangled| format!("  {demangled}"));
    format!("{name}{version}{demangled}")
}

/// Columns below each other, the last one as it is.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Every field, as one object on one line.
fn json(image: &ImageDescription) -> String {
    let Metadata { build, unit, triple, cpu, flags, inputs, entry } = &image.metadata;
    let texts = |texts: &[String]| array(texts.iter().map(|text| string(text)));
    object(&[
        ("name", optional(&image.name)),
        ("unit", string(unit)),
        ("format", image.format.to_string()),
        ("build", string(build)),
        ("triple", string(triple)),
        ("cpu", string(cpu)),
        ("variants", {
            let taken = taken(image);
            let variants = image.variants.iter().enumerate();
            array(variants.map(|(at, variant)| variant_json(variant, taken == Some(at))))
        }),
        ("flags", texts(flags)),
        ("entry", optional(entry)),
        ("size", image.size.to_string()),
        ("memory", image.memory.to_string()),
        ("build_id", optional(&image.build_id.as_deref().map(hex))),
        ("checksum", string(&hex(&image.checksum))),
        ("inputs", array(inputs.iter().map(input_json))),
        ("interface", string(&hex(&image.interface))),
        ("needed", texts(&image.needed)),
        ("dependencies", array(image.dependencies.iter().map(dependency_json))),
        ("sections", array(image.sections.iter().map(section_json))),
        ("exports", array(image.exports.iter().map(export_json))),
        ("imports", array(image.imports.iter().map(import_json))),
        ("sources", texts(&image.sources)),
        ("functions", array(image.functions.iter().map(function_json))),
    ])
}

fn variant_json(variant: &VariantDescription, taken: bool) -> String {
    let VariantDescription { requires, cpu, size, checksum, .. } = variant;
    object(&[
        ("level", string(requires.level().name())),
        ("features", array(requires.names().iter().map(|name| string(name)))),
        ("cpu", string(cpu)),
        ("size", size.to_string()),
        ("checksum", string(&hex(checksum))),
        ("taken", taken.to_string()),
    ])
}

fn input_json((name, hash): &(String, [u8; 32])) -> String {
    object(&[("name", string(name)), ("hash", string(&hex(hash)))])
}

fn dependency_json(image: &ImageDependency) -> String {
    let ImageDependency { name, interface, symbols } = image;
    object(&[
        ("name", string(name)),
        ("interface", string(&hex(interface))),
        ("symbols", array(symbols.iter().map(|symbol| string(&symbol.name)))),
    ])
}

fn section_json(section: &SectionDescription) -> String {
    let SectionDescription { name, size, address, writable, executable, in_file, .. } = section;
    object(&[
        ("name", string(name)),
        ("size", size.to_string()),
        ("address", number(*address)),
        ("writable", writable.to_string()),
        ("executable", executable.to_string()),
        ("in_file", in_file.to_string()),
    ])
}

fn export_json(export: &ExportDescription) -> String {
    let ExportDescription { name, demangled, version, kind, weak, size, compiled, identity, .. } = export;
    object(&[
        ("name", string(name)),
        ("demangled", optional(demangled)),
        ("version", optional(version)),
        ("kind", string(kind_key(*kind))),
        ("weak", weak.to_string()),
        ("size", size.to_string()),
        ("compiled", compiled.to_string()),
        ("identity", optional(&identity.map(|identity| identity.to_string()))),
    ])
}

fn import_json(import: &ImportDescription) -> String {
    let ImportDescription { name, demangled, version, weak, layer, from, .. } = import;
    object(&[
        ("name", string(name)),
        ("demangled", optional(demangled)),
        ("version", optional(version)),
        ("weak", weak.to_string()),
        ("layer", string(layer_key(*layer))),
        ("from", optional(from)),
    ])
}

fn function_json(function: &FunctionDescription) -> String {
    let FunctionDescription { name, source, compiled, .. } = function;
    object(&[("name", optional(name)), ("source", source.to_string()), ("compiled", compiled.to_string())])
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "", "x"]), row(["long", "12", ""])];
        assert_eq!(aligned(&rows), "  a         x\n  long  12\n");
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
