//! The examples do what they say: their output, to the letter.
//!
//! `cargo test` builds them; who runs these tests alone does so with `cargo build --examples`.

use crate::support::{End, Outcome, Scratch, finish, finish_within};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The executable of an example, beside the command's.
#[track_caller]
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hotbed")).with_file_name("examples").join(name);
    assert!(path.is_file(), "{} is not built: cargo build --examples", path.display());
    path
}

fn kaleidoscope() -> Command {
    Command::new(example("kaleidoscope"))
}

/// Runs a program that is on standard input.
#[track_caller]
fn run(text: &str) -> Outcome {
    finish_within(&mut kaleidoscope(), text.as_bytes(), Duration::from_secs(120))
}

/// What a program without mistakes prints.
#[track_caller]
fn printed(text: &str) -> String {
    let outcome = run(text).assert_success(text);
    assert_eq!(outcome.stderr, "", "{text}");
    outcome.stdout
}

/// The lines of what a program without mistakes prints, with a space instead of each line's end.
#[track_caller]
fn values(text: &str) -> String {
    printed(text).lines().collect::<Vec<_>>().join(" ")
}

/// The first line of each mistake in a program, without the source's name, and what it prints all the same.
#[track_caller]
fn mistakes(text: &str) -> (Vec<String>, String) {
    let outcome = run(text);
    assert_eq!(outcome.end, End::Status(1), "{text}: {}{}", outcome.stdout, outcome.stderr);
    let first = |line: &str| line.strip_prefix("standard input:").map(str::to_owned);
    (outcome.stderr.lines().filter_map(first).collect(), outcome.stdout)
}

/// One of the programs that come with the example.
#[track_caller]
fn program(name: &str) -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kaleidoscope/programs");
    finish(kaleidoscope().arg("--stats").arg(folder.join(name)))
}

#[test]
fn a_module_of_inkwells() {
    let outcome = finish(&mut Command::new(example("inkwell")));
    let want = "loaded: 0 functions compiled\n\
        square(12) = 144\n\
        called square: 1 function compiled\n\
        sum_of_squares() = 30, of [1, 4, 9, 16]\n\
        called sum_of_squares: 2 functions compiled, and cube is none of them\n\
        refused: unresolved symbol nobody, needed by lonely; asked: the unit itself, host definitions, loaded images, the process";
    // What else is asked depends on what the runtime can do.
    assert!(outcome.stdout.starts_with(want), "{}", outcome.stdout);
    assert_eq!(
        (outcome.stdout.lines().count(), outcome.end, outcome.stderr.as_str()),
        (6, End::Status(0), "")
    );
}

#[test]
fn fibonacci() {
    let outcome = program("fib.ks");
    assert_eq!(outcome.stdout, "75025\n75025\n2.880067194370816e18\n");
    assert_eq!((outcome.end, outcome.stderr.as_str()), (End::Status(0), "units: 3, functions compiled: 3\n"));
}

#[test]
fn a_table_of_the_sine() {
    let mut want = String::new();
    for step in 0..9 {
        let length = 20.0 + 20.0 * (f64::from(step) * std::f64::consts::PI / 4.0).sin();
        let stars = (0..).take_while(|at| f64::from(*at) < length).count();
        writeln!(want, "{}", "*".repeat(stars)).unwrap();
    }
    writeln!(want, "0\n0\n0.25\n0.5\n0.75\n0\n{}", (std::f64::consts::PI / 6.0).sin()).unwrap();
    assert_eq!(program("table.ks").assert_success("table.ks").stdout, want);
}

#[test]
fn mandelbrot() {
    let rounds = |c_real: f64, c_imaginary: f64| {
        let (mut real, mut imaginary, mut count) = (c_real, c_imaginary, 0);
        while count <= 255 && real * real + imaginary * imaginary <= 4.0 {
            (real, imaginary) =
                (real * real - imaginary * imaginary + c_real, 2.0 * real * imaginary + c_imaginary);
            count += 1;
        }
        count
    };
    let mut want = String::new();
    let mut y = -1.3;
    while y < 1.35 {
        let mut x = -2.3;
        while x < 1.6 {
            want.push(match rounds(x, y) {
                256.. => ' ',
                17..=255 => '.',
                7..=16 => '+',
                _ => '*',
            });
            x += 0.05;
        }
        want.push('\n');
        y += 0.07;
    }
    want.push_str("0\n");
    let outcome = program("mandelbrot.ks").assert_success("mandelbrot.ks");
    assert_eq!(outcome.stdout, want);
    // `!` is defined and not called.
    assert_eq!(outcome.stderr, "units: 8, functions compiled: 7\n");
}

#[test]
fn numbers_and_comments() {
    let text =
        "# nothing\n1; 1.5 .25 2e3 1E-7 3e+2 # and so on\n100000000000000000; 0/0; 1/0; 0.1 + 0.2; -0.5";
    assert_eq!(values(text), "1 1.5 0.25 2000 1e-7 300 1e17 NaN inf 0.30000000000000004 -0.5");
    assert_eq!(values(""), "");
    assert_eq!(values("# only this"), "");
    assert_eq!(values(";;;"), "");
}

#[test]
fn operators_by_precedence() {
    assert_eq!(values("1 + 2 * 3; (1 + 2) * 3; 10 - 4 - 3; 100 / 5 / 2; 1 < 2; 2 > 1 + 1;"), "7 9 3 10 1 0");
    assert_eq!(values("-2 * -3; - - 4; 3 - -1; 2 * -1 + 1"), "6 4 4 -1");
    let defined = "def binary| 5 (a b) if a then 1 else if b then 1 else 0;\n\
        def binary^ 60 (base n) if n < 1 then 1 else base * (base ^ (n - 1));\n\
        def unary!(v) if v then 0 else 1;\n\
        def binary~(a b) a * 10 + b;\n\
        2 ^ 3 * 2; 2 * 3 ^ 2; 2 ^ 2 ^ 3; 0 < 1 | 1 < 0; !1 | !0; !!7; 1 ~ 2 ~ 3; 1 ~ 2 * 3; 1 ~ 2 < 13";
    // Without a precedence it is 30: looser than `*`, tighter than `+`.
    assert_eq!(values(defined), "16 18 64 1 1 1 123 16 1");
    // What a program defines takes the place of what is built in, from there on.
    let anew = "def before(a b) a + b;\ndef binary+ 50 (a b) a * b - 1;\ndef unary-(v) v * 100;\n\
        before(3, 4); 3 + 4; 2 * 3 + 4; -1;";
    assert_eq!(values(anew), "7 11 22 100");
    assert_eq!(values("def binary@ (a b) a - b; def unary@(a) a + 1; 5 @ @3;"), "1");
}

#[test]
fn conditions_rounds_and_variables() {
    assert_eq!(values("if 1 then 2 else 3; if 0 then 2 else 3; if 0/0 then 2 else 3;"), "2 3 3");
    let rounds = "extern printd(x);\nfor i = 1, i < 4 in printd(i);\nfor i = 3, i > 0, -2 in printd(i * 10);\n\
        for i = 5, i < 3 in printd(i);\nfor i = 0, i < 10 in var stop in (printd(i) + (i = i * 2 + 5));";
    assert_eq!(values(rounds), "1 2 3 0 30 10 0 0 0 6 0");
    let variables = "var a = 1, b in a + b; var a = 2 in (a = a * 5) + a; var a, b in (a = b = 3) * a * b;\n\
        var a = 1 in (var a = a + 1 in a * 10) + a; def f(x) var y = x in (x = 7) + y * 100; f(3);";
    assert_eq!(values(variables), "1 20 27 21 307");
}

#[test]
fn functions_of_the_process_and_of_the_host() {
    let text = "extern sin(x); extern cos(x) extern atan2(y, x); extern pow(x y)\n\
        sin(1); cos(1); atan2(1, 2); pow(2, 0.5);";
    let (one, two) = (1.0_f64, 2.0_f64);
    let want = [one.sin(), one.cos(), one.atan2(two), two.powf(0.5)].map(|value| value.to_string()).join(" ");
    assert_eq!(values(text), want);
    let host =
        "extern putchard(c); extern printd(x);\nputchard(72) + putchard(105) + putchard(10); printd(0.5);";
    assert_eq!(printed(host), "Hi\n0\n0.5\n0\n");
    // The program's own functions are not the process's, whatever they are called.
    assert_eq!(
        values("def sin(x) 5; def free(x) x + 1; def pow(x y) x - y; sin(0); free(1); pow(2, 3);"),
        "5 2 -1"
    );
    assert_eq!(values("def llvm(x) x; def malloc(x) llvm(x) * 2; malloc(4);"), "8");
    let (told, printed) = mistakes("extern environ(x);\nextern sni(x);\nsni(1);\nextern sin(x);\nsin(0);");
    assert!(
        told[0].starts_with("1:8: error: `environ` of ") && told[0].ends_with(" is no function"),
        "{told:?}"
    );
    let missing =
        "3:1: error: `sni` is declared, but neither this program nor the process has it; `sin` is there";
    assert_eq!((told[1].as_str(), told.len(), printed.as_str()), (missing, 2, "0\n"));
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let scratch = Scratch::new("examples-mistakes");
    let text = "def f(x)\n\tx +\ty;\n1;\ndef g(a a) a;\n2; ) 3;\n4;\nf(1)";
    let file = scratch.write("bad.ks", text);
    let outcome = finish(kaleidoscope().arg(&file));
    let name = file.display();
    let want = format!(
        "{name}:2:6: error: there is no variable `y`\n\tx +\ty;\n\t   \t^\n\
         {name}:4:9: error: two parameters are called `a`\ndef g(a a) a;\n        ^\n\
         {name}:5:4: error: expected an expression, found `)`\n2; ) 3;\n   ^\n\
         {name}:7:1: error: there is no function `f`; one that comes later is made known by `extern`\nf(1)\n^\n"
    );
    assert_eq!((outcome.stderr, outcome.end), (want, End::Status(1)));
    assert_eq!(outcome.stdout, "1\n2\n4\n");
}

#[test]
fn every_mistake_has_its_place_and_the_rest_runs() {
    let all = [
        ("1 +", "2:1: error: expected an expression, found `;`"),
        ("1 + ;", "1:5: error: expected an expression, found `;`"),
        ("((1)", "2:1: error: expected `)` after the expression, found `;`"),
        ("if 1 2;", "1:6: error: expected `then` after the condition, found the number 2"),
        ("if 1 then 2;", "1:12: error: expected `else` after what `then` gives, found `;`"),
        ("for 1;", "1:5: error: expected the name of a variable, found the number 1"),
        ("for i 1;", "1:7: error: expected `=` after the variable, found the number 1"),
        ("for i = 1 in 2;", "1:11: error: expected `,` after the start, found `in`"),
        ("for i = 1, 2, 3;", "1:16: error: expected `in` before the body, found `;`"),
        ("var in 1;", "1:5: error: expected the name of a variable, found `in`"),
        ("var a 1;", "1:7: error: expected `in` before the body, found the number 1"),
        ("var a in b;", "1:10: error: there is no variable `b`"),
        ("(var a in 1) + a;", "1:16: error: there is no variable `a`"),
        ("(for i = 0, i < 1 in 1) + i;", "1:27: error: there is no variable `i`"),
        ("var a = a in 1;", "1:9: error: there is no variable `a`"),
        ("a = 1;", "1:1: error: there is no variable `a`"),
        ("1 = 2;", "1:3: error: only a variable can be assigned to"),
        ("def 1(x) x;", "1:5: error: expected the name of a function, found the number 1"),
        ("def if(x) x;", "1:5: error: expected the name of a function, found `if`"),
        ("def f x;", "1:7: error: expected `(` before the parameters, found `x`"),
        ("def f(1) x;", "1:7: error: expected `)` after the parameters, found the number 1"),
        ("def f(x, ) x;", "1:10: error: expected a parameter, found `)`"),
        ("def unary!(a b) a;", "1:15: error: `unary!` has to have one parameter"),
        ("def binary!(a) a;", "1:14: error: `binary!` has to have 2 parameters"),
        ("def binary= 2 (a b) a;", "1:11: error: `=` cannot be defined"),
        ("def binary x(a b) a;", "1:12: error: expected an operator, found `x`"),
        ("def binary| 0 (a b) a;", "1:13: error: a precedence is a whole number from 1 to 100"),
        ("def binary| 1.5 (a b) a;", "1:13: error: a precedence is a whole number from 1 to 100"),
        ("def binary| 101 (a b) a;", "1:13: error: a precedence is a whole number from 1 to 100"),
        ("1 $ 2;", "1:3: error: there is no operator `$`"),
        ("$1;", "1:1: error: there is no operator `$`"),
        ("extern sin(x); sin(1, 2);", "1:16: error: `sin` has one parameter, not 2"),
        ("extern sin(x); sin();", "1:16: error: `sin` has one parameter, not 0"),
        ("extern sin(x); extern sin(x y);", "1:23: error: `sin` has one parameter"),
        (
            "extern sin(x); sin(1 2);",
            "1:22: error: expected `,` or `)` after an argument, found the number 2",
        ),
        ("extern sin(x); sin(1, );", "1:23: error: expected an argument, found `)`"),
        (
            "nowhere(1);",
            "1:1: error: there is no function `nowhere`; one that comes later is made known by `extern`",
        ),
        ("1.2.3;", "1:1: error: `1.2.3` is no number"),
        ("2x;", "1:1: error: `2x` is no number"),
        ("1e;", "1:1: error: `1e` is no number"),
        ("1e999;", "1:1: error: the number 1e999 is too large"),
        ("1 + é;", "1:5: error: the character `é` means nothing here"),
        ("def é(x) x;", "1:5: error: the character `é` means nothing here"),
    ];
    for (text, want) in all {
        let (told, printed) = mistakes(&format!("{text}\n;def works(x) x + 1; works(41);"));
        assert_eq!((told.join(" | ").as_str(), printed.as_str()), (want, "42\n"), "{text}");
    }
    let (told, _) = mistakes("1 +");
    assert_eq!(told, ["1:4: error: expected an expression, found the end"]);
    // No text is an order for a terminal, and none is too strange.
    let everything: Vec<u8> = (0..=255).filter(|byte| *byte != b'#').chain(*b"\n;1;").collect();
    let outcome = finish_within(&mut kaleidoscope(), &everything, Duration::from_secs(60));
    assert_eq!((outcome.stdout.as_str(), outcome.end), ("1\n", End::Status(1)));
    assert!(!outcome.stderr.contains('\u{1b}'), "{}", outcome.stderr);
}

#[test]
fn an_operator_whose_definition_fails_is_none() {
    let text = "def binary| 5 (a b) nowhere(a);\n1 | 2;\ndef unary!(v) w;\n!1;\ndef binary* 1 (a b) nowhere(a);\n1 + 2 * 3;";
    let (told, printed) = mistakes(text);
    assert_eq!(told[1], "2:3: error: there is no operator `|`");
    assert_eq!(told[3], "4:1: error: there is no operator `!`");
    assert_eq!((told.len(), printed.as_str()), (5, "7\n"));
}

#[test]
fn a_function_defined_again_is_another_one() {
    let text = "def f(x) x + 1;\ndef user(x) f(x) * 10;\nuser(1); f(1);\ndef f(x) x + 2;\nuser(1); f(1);\n\
        def f(a b) a * b;\nuser(1); f(6, 7);\ndef user(x) f(x, x);\nuser(9);\n\
        extern cos(x); cos(0); def cos(x) x + 100; cos(0); def g() cos(1); def cos(x) 3; g(); cos(0);\n\
        def down(n) if n < 1 then 0 else down(n - 1); def down(n) 9; down(5);";
    assert_eq!(values(text), "20 2 20 3 20 42 81 1 100 101 3 9");
    // A definition that fails leaves the old one.
    let (told, printed) = mistakes("def f(x) x + 1;\ndef f(x) y;\nf(1);");
    assert_eq!((told.len(), printed.as_str()), (1, "2\n"));
}

#[test]
fn what_is_outdated_goes_when_nobody_uses_it() {
    let units = |text: &str| {
        let outcome = finish_within(kaleidoscope().arg("--stats"), text.as_bytes(), Duration::from_secs(60));
        outcome.assert_success(text).stderr
    };
    // The units of expressions go at once.
    assert_eq!(units("1; 2; 3;"), "units: 0, functions compiled: 0\n");
    assert_eq!(units("def f(x) 1; f(0); def f(x) 2; f(0);"), "units: 1, functions compiled: 2\n");
    assert_eq!(units("def f(x) 1; def g(x) f(x); def f(x) 2;"), "units: 3, functions compiled: 0\n");
    assert_eq!(
        units("def f(x) 1; def g(x) f(x); def f(x) 2; def g(x) f(x);"),
        "units: 2, functions compiled: 0\n"
    );
}

#[test]
fn functions_that_need_each_other() {
    let parity = "extern odd(n);\ndef even(n) if n < 1 then 1 else odd(n - 1);\n";
    let later = "def odd(n) if n < 1 then 0 else even(n - 1);\neven(1000); odd(1001); even(7);";
    assert_eq!(values(&format!("{parity}{later}")), "1 1 0");
    let (told, printed) = mistakes(&format!("{parity}even(4);\nodd(3);\ndef odd(a b) a;\n{later}"));
    let want = [
        "3:1: error: `even` cannot be called yet: it waits for `odd`",
        "4:1: error: `odd` is declared, but neither this program nor the process has it",
        "5:5: error: `odd` has one parameter",
    ];
    let near = |told: &str| told.split("; `").next().unwrap().to_owned();
    assert_eq!(told.iter().map(|told| near(told)).collect::<Vec<_>>(), want);
    assert_eq!(printed, "1\n1\n0\n");
    // A long chain, backwards, comes as a whole with its last link; operators may come later too.
    let mut chain = String::new();
    for at in 0..50 {
        writeln!(chain, "extern f{}(x) def f{at}(x) f{}(x + 1);", at + 1, at + 1).unwrap();
    }
    chain.push_str("def f50(x) x * 2; f0(0); extern binary$ 20 (a b) def late(a b) a $ b; def binary$ 20 (a b) a * b; late(6, 7);");
    assert_eq!(values(&chain), "100 42");
    // What waits keeps what it needs, and what is outdated before it is loaded is forgotten.
    let waits = "def helper(x) x + 1; extern q(x); def p(x) q(helper(x)); def helper(x) x + 2; def pp(x) p(x) + 10;\n\
        def p(x) q(x) + 3; def q(x) x; p(0); pp(0); helper(0);";
    assert_eq!(values(waits), "3 11 2");
}

#[test]
fn what_is_not_called_is_not_compiled() {
    let mut text = String::new();
    for at in 0..1000 {
        let inner = if at == 501 { "f499(x)" } else { "1" };
        writeln!(text, "def f{at}(x) x * {at} + {inner};").unwrap();
    }
    text.push_str("f501(2); f7(1); f7(2); f7(3);");
    let outcome = finish_within(kaleidoscope().arg("--stats"), text.as_bytes(), Duration::from_secs(240));
    assert_eq!(outcome.stdout, "2001\n8\n15\n22\n");
    assert_eq!(
        (outcome.stderr.as_str(), outcome.end),
        ("units: 1000, functions compiled: 3\n", End::Status(0))
    );
}

#[test]
fn depth_is_a_mistake_and_no_crash() {
    let many = 100_000;
    let nested = [
        format!("{}1{};", "(".repeat(many), ")".repeat(many)),
        format!("1{};", "+1".repeat(many)),
        format!("{}1;", "-".repeat(many)),
        format!("var x in {}1;", "x=".repeat(many)),
        format!("{};", "if ".repeat(many)),
        format!("{}1;", "for i = 0, i < 1 in ".repeat(many)),
        format!("{}1;", "var x in ".repeat(many)),
        format!("extern sin(x) {}1;", "sin(".repeat(many)),
        format!("def f(x) {}1;", "(1+".repeat(many)),
    ];
    for text in nested {
        let (told, printed) = mistakes(&format!("{text} 42;"));
        assert_eq!((told.len(), printed.as_str()), (1, "42\n"), "{told:?}");
        assert!(told[0].ends_with(": error: the expression has more than 500 levels"), "{told:?}");
    }
    // What is less deep works, on a small stack too.
    let deep = 450;
    let fits = [
        (format!("{}1{};", "(".repeat(deep), ")".repeat(deep)), "1\n"),
        (format!("1{};", "+1".repeat(deep)), "451\n"),
        (format!("{}5{};", "if 1 then ".repeat(deep), " else 0".repeat(deep)), "5\n"),
        (format!("{}7;", "var x in ".repeat(deep)), "7\n"),
    ];
    for (text, want) in fits {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -s 512; exec \"$0\""]).arg(example("kaleidoscope"));
        let outcome = finish_within(&mut command, text.as_bytes(), Duration::from_secs(60));
        assert_eq!((outcome.stdout.as_str(), outcome.end), (want, End::Status(0)), "{}", outcome.stderr);
    }
}

#[test]
fn files_share_a_session() {
    let scratch = Scratch::new("examples-files");
    let one = scratch.write("one.ks", "def f(x) x * 2; def binary| 5 (a b) a * 100 + b;");
    let two = scratch.write("two.ks", "f(21); 1 | 2");
    let outcome = finish(kaleidoscope().args([&one, &two])).assert_success("both");
    assert_eq!(outcome.stdout, "42\n102\n");
    let outcome = finish(kaleidoscope().args([&one, &scratch.join("none.ks"), scratch.path(), &two]));
    assert_eq!((outcome.stdout.as_str(), outcome.end), ("42\n102\n", End::Status(1)));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("kaleidoscope: cannot read ") && lines[0].contains("none.ks: No such file"),
        "{lines:?}"
    );
    assert!(lines[1].contains(": Is a directory"), "{lines:?}");
}

#[test]
fn options_and_output() {
    let ir = finish_within(kaleidoscope().arg("--ir"), b"def f(x) x + 1; f(2);", Duration::from_secs(60));
    assert_eq!((ir.stdout.as_str(), ir.end), ("3\n", End::Status(0)));
    assert!(ir.stderr.contains("define double @ks.f.1(double %x)"), "{}", ir.stderr);
    assert!(ir.stderr.contains("call double @ks.f.1(double 2.000000e+00)"), "{}", ir.stderr);
    let unknown = finish(kaleidoscope().arg("--nonsense"));
    assert_eq!(unknown.end, End::Status(2));
    assert!(
        unknown.stderr.starts_with("kaleidoscope: unknown option --nonsense\nUsage: "),
        "{}",
        unknown.stderr
    );
    let help = finish(kaleidoscope().arg("--help")).assert_success("help");
    assert!(help.stdout.starts_with("Usage: kaleidoscope "), "{}", help.stdout);
    let full = finish_within(
        Command::new("sh").args(["-c", "exec \"$0\" > /dev/full"]).arg(example("kaleidoscope")),
        b"extern printd(x); printd(1);",
        Duration::from_secs(60),
    );
    assert_eq!(full.end, End::Status(1));
    assert!(
        full.stderr.starts_with("kaleidoscope: cannot write to standard output: No space"),
        "{}",
        full.stderr
    );
}

#[test]
fn at_a_terminal_each_item_is_done_when_it_ends() {
    let mut child = Command::new("script")
        .args(["-qec"])
        .arg(example("kaleidoscope"))
        .arg("/dev/null")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut until = |end: &str| {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let mut byte = [0];
            std::io::Read::read_exact(&mut output, &mut byte).unwrap();
            seen.push(byte[0]);
        }
        String::from_utf8(seen).unwrap().replace('\r', "")
    };
    until("ks> ");
    // Each answer is there before more is typed.
    input.write_all(b"def f(x)\n").unwrap();
    assert_eq!(until("...> "), "def f(x)\n...> ");
    input.write_all(b"x + 1;\n").unwrap();
    assert_eq!(until("ks> "), "x + 1;\nks> ");
    input.write_all(b"f(2);\n").unwrap();
    assert_eq!(until("ks> "), "f(2);\n3\nks> ");
    input.write_all(b"f(y) + 1; 5\n").unwrap();
    let told = "f(y) + 1; 5\nstandard input:4:3: error: there is no variable `y`\nf(y) + 1; 5\n  ^\n";
    assert_eq!(until("...> "), format!("{told}...> "));
    input.write_all(b"; (1 2;\n").unwrap();
    let told = "5\nstandard input:5:6: error: expected `)` after the expression, found the number 2\n; (1 2;\n     ^\n";
    assert_eq!(until("ks> "), format!("; (1 2;\n{told}ks> "));
    input.write_all(b"\x04").unwrap();
    assert_eq!(End::from(child.wait().unwrap()), End::Status(0));
}
