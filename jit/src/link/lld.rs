//! lld, one link at a time, and its messages made readable.

use crate::shim;
use hotbed_loader::sys::sync::Mutex;

/// lld keeps its state in globals.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a link came to.
pub(crate) struct Outcome {
    /// Whether there is an image.
    pub(crate) ok: bool,
    /// lld's messages, with the inputs' own names.
    pub(crate) messages: String,
}

/// Links. `names` are the paths of files in memory and what to call them in messages.
pub(crate) fn run(arguments: &[String], names: &[(String, String)]) -> Outcome {
    let (ok, output) = {
        let _alone = ONE_AT_A_TIME.lock();
        shim::link(arguments)
    };
    Outcome { ok, messages: readable(&output, names) }
}

/// Puts the inputs' names where lld gave the paths of files in memory, and advice where it gives none.
pub(crate) fn readable(output: &str, names: &[(String, String)]) -> String {
    let mut text = String::with_capacity(output.len());
    let mut rest = output;
    while let Some(at) = rest.find("/proc/self/fd/") {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let digits = rest["/proc/self/fd/".len()..].bytes().take_while(u8::is_ascii_digit).count();
        let (path, behind) = rest.split_at("/proc/self/fd/".len() + digits);
        let name = names.iter().find(|(known, _)| known == path).map_or(path, |(_, name)| name.as_str());
        text.push_str(name);
        rest = behind;
    }
    text.push_str(rest);
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.strip_prefix("ld.lld: ").unwrap_or(line);
        let local_exec = line.starts_with("error: relocation R_X86_64_TPOFF");
        lines.push(if local_exec { format!("{line}; recompile with -fPIC") } else { line.to_owned() });
    }
    lines.join("\n")
}

/// The first error in lld's messages, without its label, and the place it names.
pub(crate) fn first_error(messages: &str) -> String {
    let mut lines = messages.lines().skip_while(|line| !line.starts_with("error: "));
    let Some(first) = lines.next() else {
        return messages.lines().next().unwrap_or("the linker gave no reason").to_owned();
    };
    let place = lines.take_while(|line| line.starts_with(">>> ")).find_map(|line| {
        line.strip_prefix(">>> referenced by ").or_else(|| line.strip_prefix(">>> defined in "))
    });
    let first = first.trim_start_matches("error: ");
    match place {
        Some(place) => format!("{first} ({place})"),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_get_their_names_back() {
        let names =
            [("/proc/self/fd/1".into(), "one.c".into()), ("/proc/self/fd/12".into(), "twelve.c".into())];
        let text = readable(
            "ld.lld: error: duplicate symbol: f\n>>> /proc/self/fd/12:(f)\n>>> /proc/self/fd/1\n",
            &names,
        );
        assert_eq!(text, "error: duplicate symbol: f\n>>> twelve.c:(f)\n>>> one.c");
    }

    #[test]
    fn the_first_error_is_one_line_with_its_place() {
        let text = "error: relocation R_X86_64_TPOFF32 against t cannot be used with -shared; recompile with -fPIC\n\
                    >>> defined in a.o\n>>> referenced by a.c\nerror: second";
        assert_eq!(
            first_error(text),
            "relocation R_X86_64_TPOFF32 against t cannot be used with -shared; recompile with -fPIC (a.o)"
        );
    }
}
