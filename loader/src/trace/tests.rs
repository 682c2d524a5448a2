//! What is written is read again; whatever else is in a file is told, and harms nothing.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use crate::fuzzing::mutation::Random;

/// A text of characters that are likely to be taken for something.
fn text(random: &mut Random, most: usize) -> String {
    const CHARACTERS: &[char] = &[
        'a',
        'Z',
        '_',
        '0',
        '.',
        ' ',
        '-',
        '$',
        '/',
        ':',
        '\\',
        '\t',
        '\n',
        '\r',
        '\0',
        '\u{7f}',
        '\u{85}',
        'ü',
        '{',
        '}',
        'u',
        '\u{1f600}',
        '\u{2028}',
    ];
    (0..random.below(most)).map(|_| CHARACTERS[random.below(CHARACTERS.len())]).collect()
}

fn record(random: &mut Random) -> Record {
    let function = format!("f{}", text(random, 12));
    let content = (random.below(4) > 0).then(|| std::array::from_fn(|_| random.number() as u8));
    let microseconds = random.number() >> random.below(64);
    let flags = (0..random.below(4)).map(|_| text(random, 8)).collect();
    Record { source: text(random, 12), function, content, microseconds, flags }
}

#[test]
fn records_survive_the_file() {
    for seed in 0..20_000 {
        let record = record(&mut Random::new(seed));
        let line = record.encode();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
        assert_eq!(line.lines().count(), 1);
        assert_eq!(Record::decode(&line), Ok(record.clone()), "{line:?}");
        assert_eq!(Record::decode(line.trim_end_matches('\n')), Ok(record));
    }
}

#[test]
fn the_form_is_what_it_is_said_to_be() {
    let record = Record {
        source: "src/a b.c".into(),
        function: "_Z3fooi\t\\\u{1}".into(),
        content: Some([0xa5; 32]),
        microseconds: 12_045,
        flags: vec!["-O2".into(), String::new()],
    };
    let line =
        format!("hotbed-trace-1\tsrc/a b.c\t_Z3fooi\\t\\\\\\u{{1}}\t{}\t12.045\t-O2\t\n", "a5".repeat(32));
    assert_eq!(record.encode(), line);
    let plain = Record { content: None, flags: Vec::new(), microseconds: 7, ..record };
    assert_eq!(plain.encode(), "hotbed-trace-1\tsrc/a b.c\t_Z3fooi\\t\\\\\\u{1}\t-\t0.007\n");
}

#[test]
fn lines_that_are_none_are_told() {
    let refused = |line: &str| Record::decode(line).unwrap_err().to_string();
    for line in
        ["", "what else is in a file", "hotbed-tracer\ta\tb\t-\t0.000", " hotbed-trace-1\ta\tb\t-\t0.000"]
    {
        assert_eq!(refused(line), "it is no record of a trace", "{line:?}");
    }
    assert!(refused("hotbed-trace-2\tno matter").contains("version 2, this is version 1"));
    for (line, why) in [
        ("hotbed-trace-1", "too early"),
        ("hotbed-trace-1\ta.c\tf\t-", "too early"),
        ("hotbed-trace-1\ta.c\t\t-\t0.000", "no function"),
        ("hotbed-trace-1\ta.c\tf\tA5\t0.000", "no hash"),
        ("hotbed-trace-1\ta.c\tf\t-\t1", "no number"),
        ("hotbed-trace-1\ta.c\tf\t-\t+1.000", "no number"),
        ("hotbed-trace-1\ta.c\tf\t-\t99999999999999999999.000", "no number"),
        ("hotbed-trace-1\ta.c\tf\\x\t-\t0.000", "backslash"),
        ("hotbed-trace-1\ta.c\tf\\u{61}\t-\t0.000", "backslash"),
        ("hotbed-trace-1\ta.c\tf\\u{d800}\t-\t0.000", "backslash"),
        ("hotbed-trace-1\ta.c\tf\\\t-\t0.000", "backslash"),
        ("hotbed-trace-1\ta.c\tf\r\t-\t0.000", "control character"),
    ] {
        assert!(refused(line).contains(why), "{line:?}: {}", refused(line));
    }
}

#[test]
fn mutated_lines_are_refused_or_read_as_what_they_say() {
    let mut refused = 0;
    for seed in 0..50_000 {
        let mut random = Random::new(seed);
        let mut characters: Vec<char> = record(&mut random).encode().chars().collect();
        for _ in 0..1 + random.below(3) {
            let at = random.below(characters.len());
            match random.below(4) {
                0 => drop(characters.drain(..at)),
                1 => characters.truncate(at),
                2 => characters.insert(at, text(&mut random, 12).chars().next().unwrap_or('\t')),
                _ => characters[at] = char::from(random.number() as u8),
            }
            if characters.is_empty() {
                break;
            }
        }
        let line: String = characters.into_iter().collect();
        match Record::decode(&line) {
            Ok(read) => assert_eq!(Record::decode(&read.encode()), Ok(read), "{line:?}"),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!((10_000..50_000).contains(&refused), "{refused}");
}

#[test]
fn sources_are_called_the_same_wherever_they_lie() {
    let name = |path: &str| source_name(path, Path::new("/home/user/project"));
    assert_eq!(name("src/a.c"), "src/a.c");
    assert_eq!(name("./src//./a.c"), "src/a.c");
    assert_eq!(name("/home/user/project/src/a.c"), "src/a.c");
    assert_eq!(name("/home/user/projects/a.c"), "/home/user/projects/a.c");
    assert_eq!(name("../a.c"), "../a.c");
    assert_eq!(name("<stdin>"), "<stdin>");
    assert_eq!(name("/home/user/project"), "/home/user/project");
}

#[test]
fn flags_that_decide_about_code_are_told_from_others() {
    let flags = [
        "-O2",
        "-I",
        "-O3",
        "-Iinc",
        "-DX=1",
        "-D",
        "Y",
        "-w",
        "-Wall",
        "-lm",
        "-L",
        "lib",
        "-std=c++20",
        "-Wl,-z,now",
        "-Wa,-I,x",
        "-isystem",
        "x",
        "-march=x86-64-v3",
        "-fno-inline",
        "-fdiagnostics-color",
        "-rdynamic",
        "-include",
        "x.h",
    ];
    let kept = [
        "-O2",
        "-DX=1",
        "-D",
        "Y",
        "-std=c++20",
        "-Wa,-I,x",
        "-march=x86-64-v3",
        "-fno-inline",
        "-include",
        "x.h",
    ];
    assert_eq!(matters(flags), kept);
    assert_eq!(matters(["-I"]), [""; 0]);
}
