//! The key of a request: everything that must be the same for an image to serve, but for the contents of files.

use super::level::Level;
use super::settings::Settings;
use crate::boundary::Request;
use crate::codec::Writer;

/// Hash over the shape of a request, and the level of optimisation that it asks for. Requests whose keys are equal in all but
/// the level share a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    hash: [u8; 32],
    pub(super) level: Option<Level>,
}

impl Key {
    /// The key of `request`. The unit's name and the colour of messages are not in it; nor is the directory,
    /// unless debug information or coverage data records it: dependencies with relative paths tell directories apart.
    pub fn of(request: &Request) -> Self {
        Self::of_settings(&Settings::of(request))
    }

    pub(super) fn of_settings(settings: &Settings<'_>) -> Self {
        let mut w = Writer::new();
        settings.write_exact(&mut w);
        Self { hash: *blake3::hash(&w.finish()).as_bytes(), level: settings.level }
    }

    /// The name of its manifest.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::{Argument, Content, Input, Lang, Trace};
    use crate::image::sample_interface;
    use crate::trace::{Call, Record};

    fn request() -> Request {
        Request {
            unit: "u".into(),
            arguments: vec![
                Argument::Flag("-O2".into()),
                Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) }),
            ],
            directory: "/here".into(),
            ..Request::default()
        }
    }

    fn traced(change: impl FnOnce(&mut Trace)) -> Request {
        let (source, function) = ("a.c".into(), "f".into());
        let record = Record { source, function, content: None, microseconds: 1, flags: Vec::new() };
        let call = Call { record, trace: "t".into(), line: 1 };
        let mut trace = Trace { calls: vec![call.clone(), call], strict: false };
        trace.calls[1].record.function = "g".into();
        change(&mut trace);
        Request { trace: Some(trace), ..request() }
    }

    #[test]
    fn what_matters_is_in_the_key() {
        let base = request();
        let stock = Some(vec![1]);
        let same =
            Request { unit: "other".into(), color: true, stock, directory: "/there".into(), ..request() };
        assert_eq!(Key::of(&base), Key::of(&same));
        let elsewhere = |trace: &mut Trace| {
            trace.calls[0].record.microseconds = 2;
            trace.calls[0].trace = "u".into();
            trace.calls[0].line = 7;
        };
        assert_eq!(Key::of(&traced(|_| {})), Key::of(&traced(elsewhere)));
        let mut different = vec![
            traced(|_| {}),
            traced(|trace| trace.strict = true),
            traced(|trace| trace.calls.swap(0, 1)),
            traced(|trace| trace.calls[0].record.source = "b.c".into()),
            traced(|trace| trace.calls[0].record.content = Some([0; 32])),
            traced(|trace| trace.calls[0].record.flags = vec!["-O2".into()]),
            Request { entry: Some("main".into()), ..request() },
            Request { whole_archives: true, ..request() },
            Request { lazy: true, ..request() },
            Request { soname: Some("u.hbi".into()), ..request() },
            Request { images: vec![sample_interface("one")], ..request() },
            Request { images: vec![sample_interface("other")], ..request() },
            Request { environment: vec![("CPATH".into(), "x".into())], ..request() },
        ];
        let change = |f: &dyn Fn(&mut Vec<Argument>)| {
            let mut changed = request();
            f(&mut changed.arguments);
            changed
        };
        different.push(change(&|a| a.insert(0, Argument::Flag("-lm".into()))));
        different.push(change(&|a| a.push(Argument::Flag("-lm".into()))));
        different.push(change(&|a| a[0] = Argument::Flag("-Os".into())));
        different.push(change(&|a| a.push(Argument::Flag("-Ofast".into()))));
        different.push(change(&|a| a.insert(1, Argument::Flag("-include".into()))));
        different.push(change(&|a| a.push(Argument::Flag("-march=native".into()))));
        for (lang, content) in [
            (Lang::Cpp, Content::File("a.c".into())),
            (Lang::C, Content::File("b.c".into())),
            (Lang::C, Content::Bytes { name: "a.c".into(), bytes: vec![] }),
            (Lang::C, Content::Bytes { name: "a.c".into(), bytes: vec![1] }),
        ] {
            different.push(change(&|a| a[1] = Argument::Input(Input { lang, content: content.clone() })));
        }
        let mut keys: Vec<_> = different.iter().map(|r| Key::of(r).hex()).collect();
        keys.push(Key::of(&base).hex());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), different.len() + 1);
    }

    #[test]
    fn levels_share_a_manifest_where_they_have_a_rank() {
        let key = |flags: &[&str], lang| {
            let mut request = request();
            request.arguments = flags.iter().map(|&flag| Argument::Flag(flag.into())).collect();
            let content = Content::File("a".into());
            request.arguments.push(Argument::Input(Input { lang, content }));
            Key::of(&request)
        };
        let of_c = |flags: &[&str]| key(flags, Lang::C);
        let share = |one: &[&str], other: &[&str]| of_c(one).hex() == of_c(other).hex();
        assert!(share(&["-O2"], &[]) && share(&["-O2"], &["-O"]) && share(&["-O3", "-g", "-O0"], &["-g"]));
        assert_eq!(of_c(&["-O3", "-O1"]), of_c(&["-O"]));
        assert_ne!(of_c(&["-O2"]), of_c(&["-O3"]), "units of other levels are not the same");
        // Off the scale, or out of sight.
        assert!(!share(&["-O2"], &["-Os"]) && !share(&["-O2"], &["-O2", "-Ofast"]));
        assert!(!share(&["-Ofast", "-fno-fast-math"], &["-fno-fast-math", "-Ofast"]));
        assert!(!share(&["-O2", "-Xclang", "-O1"], &["-O1", "-Xclang", "-O1"]));
        // The values of flags are no flags.
        assert!(!share(&["-include", "-O2"], &["-include", "-O3"]) && !share(&["-D", "-O2"], &["-D"]));
        // What is linked as it is has no level.
        assert_eq!(key(&["-O2"], Lang::Object), key(&["-Os"], Lang::Object));
        assert_ne!(key(&["-O2", "-flto"], Lang::Archive), key(&["-Os", "-flto"], Lang::Archive));
        assert_ne!(key(&["-O2"], Lang::Bitcode), key(&["-Os"], Lang::Bitcode));
        let mut hidden = request();
        let overridden =
            Request { environment: vec![("CCC_OVERRIDE_OPTIONS".into(), "x-O2".into())], ..hidden.clone() };
        hidden.arguments[0] = Argument::Flag("-O1".into());
        let hidden = Request { environment: overridden.environment.clone(), ..hidden };
        assert_ne!(Key::of(&hidden).hex(), Key::of(&overridden).hex());
    }

    #[test]
    fn the_directory_counts_when_it_is_recorded() {
        for (flag, counts) in
            [("-g", true), ("-g0", false), ("-ggdb3", true), ("--coverage", true), ("-O1", false)]
        {
            let mut here = request();
            here.arguments.push(Argument::Flag(flag.into()));
            let there = Request { directory: "/there".into(), ..here.clone() };
            assert_eq!(Key::of(&here) != Key::of(&there), counts, "{flag}");
        }
    }
}
