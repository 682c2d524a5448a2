//! What the command line means.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;

fn run(arguments: &[&'static CStr]) -> Result<Arguments, UsageError> {
    parse(arguments, Purpose::Run)
}

fn flags(parsed: &Arguments) -> Vec<&'static str> {
    parsed
        .pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Flag(flag) => Some(*flag),
            Piece::File(_) => None,
        })
        .collect()
}

fn kinds(parsed: &Arguments) -> Vec<Kind> {
    parsed.files().map(|file| file.kind).collect()
}

#[test]
fn flags_files_options_and_arguments_are_told_apart() {
    let parsed = run(&[
        c"-O2",
        c"-I",
        c"inc.c",
        c"--timings=json",
        c"a.c",
        c"-include",
        c"pre.h",
        c"-lm",
        c"--cache-dir",
        c"d",
        c"b.o",
        c"--",
        c"x.c",
        c"--help",
    ])
    .unwrap();
    assert_eq!(flags(&parsed), ["-O2", "-I", "inc.c", "-include", "pre.h", "-lm"]);
    assert_eq!(kinds(&parsed), [Kind::Input(Lang::C), Kind::Input(Lang::Object)]);
    assert_eq!(parsed.program, [c"x.c", c"--help"]);
    assert_eq!(parsed.options.timings, Some(TimingsFormat::Json));
    assert_eq!(parsed.options.cache_dir, Some(Path::new("d")));
    assert!(!parsed.options.help);
}

#[test]
fn suffixes_tell_what_is_in_a_file() {
    for (name, kind) in [
        ("a.c", Some(Kind::Input(Lang::C))),
        ("d.x/a.cxx", Some(Kind::Input(Lang::Cpp))),
        ("a.ll", Some(Kind::Input(Lang::Ir))),
        ("a.bc", Some(Kind::Input(Lang::Bitcode))),
        ("liba.a", Some(Kind::Input(Lang::Archive))),
        ("a.hbi", Some(Kind::Image)),
        ("libz.so", Some(Kind::SharedLibrary)),
        ("/lib/libz.so.1.2.13", Some(Kind::SharedLibrary)),
        ("x.so.d/readme", None),
        ("notes.1.2", None),
        ("x.so.", None),
        ("Makefile", None),
        (".so", Some(Kind::SharedLibrary)),
        ("", None),
    ] {
        assert_eq!(kind_of_name(name.as_bytes()), kind, "{name}");
    }
}

#[test]
fn x_holds_for_the_files_after_it_until_none() {
    let parsed = run(&[c"a.c", c"-x", c"c++", c"b.c", c"-xc", c"odd", c"-x", c"none", c"c.c"]).unwrap();
    let expected = [Lang::C, Lang::Cpp, Lang::C, Lang::C].map(Kind::Input);
    assert_eq!(kinds(&parsed), expected);
    assert!(flags(&parsed).is_empty());
    assert!(run(&[c"-x", c"ada", c"a.adb"]).unwrap_err().0.contains("ada"));
}

#[test]
fn lang_decides_for_standard_input_wherever_it_stands() {
    for arguments in [[c"--lang", c"c", c"-"], [c"-", c"--lang", c"c"], [c"-", c"--lang=c", c"--eager"]] {
        assert_eq!(kinds(&run(&arguments).unwrap()), [Kind::Input(Lang::C)]);
    }
    let parsed = run(&[c"--lang=c++", c"a.c", c"b.o", c"-"]).unwrap();
    assert_eq!(kinds(&parsed), [Lang::Cpp, Lang::Object, Lang::Cpp].map(Kind::Input));
    assert!(run(&[c"-"]).is_err());
    assert!(run(&[c"--lang=c", c"-", c"-"]).is_err());
    assert!(run(&[c"readme"]).unwrap_err().0.contains("readme"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for arguments in [
        &[][..],
        &[c"-O2"],
        &[c"-c", c"a.c"],
        &[c"a.c", c"-o", c"a"],
        &[c"a.c", c"-oa"],
        &[c"-shared", c"a.c"],
        &[c"a.c", c"-I"],
        &[c"a.c", c"--cache-dir"],
        &[c"--timings=xml", c"a.c"],
        &[c"a.c", c"--trace"],
        &[c"--trace", c"t", c"--eager", c"a.c"],
        &[c"--trace=t", c"--isolate", c"a.c"],
        &[c"-\xff", c"a.c"],
        &[c"-print-search-dirs", c"a.c"],
    ] {
        assert!(run(arguments).is_err(), "{arguments:?}");
    }
    let lazy_after_all = run(&[c"--trace=t", c"--eager", c"--lazy", c"a.c"]).unwrap();
    assert_eq!(lazy_after_all.options.trace, Some(Path::new("t")));
}

#[test]
fn an_image_is_built_by_traces() {
    let build = |arguments: &[&'static CStr]| {
        parse(&[&[c"-o", c"a.hbi", c"a.c"], arguments].concat(), Purpose::BuildImage)
    };
    let parsed = build(&[c"--trace", c"one", c"--trace=two", c"--rest", c"bitcode", c"--strict"]).unwrap();
    assert_eq!(parsed.options.traces, [Path::new("one"), Path::new("two")]);
    assert_eq!((parsed.options.rest, parsed.options.strict), (Some(Rest::Bitcode), true));
    let parsed = build(&[c"--trace=t", c"--rest=compile"]).unwrap();
    assert_eq!((parsed.options.rest, parsed.options.strict), (Some(Rest::Compile), false));
    for arguments in
        [&[c"--rest=bitcode"][..], &[c"--strict"], &[c"--trace=t", c"--rest=none"], &[c"--trace"]]
    {
        assert!(build(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn an_explanation_wants_a_symbol_before_the_files() {
    let explain = |arguments: &[&'static CStr]| parse(arguments, Purpose::Explain);
    let parsed = explain(&[c"-O2", c"--json", c"n::twice(int)", c"-lm", c"a.cpp"]).unwrap();
    assert_eq!((parsed.symbol, parsed.options.json), (Some("n::twice(int)"), true));
    assert_eq!(kinds(&parsed), [Kind::Input(Lang::Cpp)]);
    for arguments in
        [&[][..], &[c"f"], &[c"", c"a.c"], &[c"f", c"a.c", c"--", c"x"], &[c"f", c"a.c", c"-o", c"x"]]
    {
        assert!(explain(arguments).is_err(), "{arguments:?}");
    }
    assert_eq!(flags(&run(&[c"--json", c"a.c"]).unwrap()), ["--json"], "clang's to refuse");
}

#[test]
fn an_image_wants_a_name_and_something_to_compile() {
    let build = |arguments: &[&'static CStr]| parse(arguments, Purpose::BuildImage);
    let parsed = build(&[c"-o", c"x.hbi", c"-O2", c"a.c"]).unwrap();
    assert_eq!(parsed.options.output, Some(Path::new("x.hbi")));
    assert_eq!(flags(&parsed), ["-O2"]);
    assert_eq!(build(&[c"-ox.hbi", c"a.c"]).unwrap().options.output, Some(Path::new("x.hbi")));
    assert!(build(&[c"a.c"]).is_err());
    assert!(build(&[c"-o", c"x.hbi", c"y.hbi"]).is_err());
    assert!(build(&[c"-o", c"x.hbi", c"a.c", c"libz.so"]).is_err());
    let against = build(&[c"-o", c"x.hbi", c"a.c", c"y.hbi"]).unwrap();
    assert_eq!(against.files().last().unwrap().kind, Kind::Image);
    assert!(build(&[c"-o", c"x.hbi", c"a.c", c"--", c"b"]).is_err());
}

#[test]
fn processors_are_one_for_a_run_and_several_for_an_image() {
    let parsed = run(&[c"--cpu", c"x86-64-v2", c"a.c"]).unwrap();
    assert_eq!(parsed.options.cpu, Some(CpuLevel::V2));
    let image = [c"-o", c"a.hbi", c"a.c", c"--cpu=x86-64; x86-64-v3;native"];
    let parsed = parse(&image, Purpose::BuildImage).unwrap();
    assert_eq!(parsed.options.variants, [CpuLevel::V1, CpuLevel::V3, CpuLevel::Native]);
    for levels in [c"--cpu=x86-64;x86-64-v3", c"--cpu=haswell", c"--cpu="] {
        let error = run(&[levels, c"a.c"]).unwrap_err().to_string();
        assert!(error.contains("the levels are x86-64, x86-64-v2"), "{error}");
    }
}
