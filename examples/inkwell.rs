//! A module that inkwell builds, run by Hotbed: lazily, with functions of the host.
//!
//! This is all that the author of a language has to do once there is IR: hand it over as bitcode, say which functions of the
//! host it may call, and ask for the functions by name. Linking, loading, and compiling each function when it is first called
//! is Hotbed's work. `cargo run --example inkwell` runs it, after `cargo build --workspace`, which builds the plugin;
//! `examples/kaleidoscope` is a whole language made this way.
//!
//! Only bitcode goes from the host's LLVM to Hotbed's, so the host's may be an older one. A host depends on `hotbed`, and on inkwell with
//! the LLVM that it has (`inkwell = { version = "0.11", features = ["llvm22-1"] }`); Hotbed opens its plugin when there is
//! something to compile. With the feature `static-backend` the compiler is in the host instead, and inkwell shares its
//! LLVM: then the feature is `llvm22-1-no-llvm-linking`, as in this repository.

use hotbed::{Bitcode, Ir, Runtime, host_fn};
use inkwell::builder::BuilderError;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::{AddressSpace, IntPredicate};
use std::error::Error;
use std::ffi::c_void;
use std::process::ExitCode;

// Inkwell comes without an LLVM here; that is in this crate. A host that links its own needs no such line.
use hotbed_jit as _;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inkwell: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().no_cache().build()?;
    // What is defined is found by every unit that is loaded from now on, before anything of that name in the process.
    runtime.define("host_limit", host_fn!(limit as extern "C" fn() -> i64))?;
    runtime.define("host_visit", host_fn!(visit as unsafe extern "C" fn(*mut c_void, i64)))?;

    let bitcode = {
        let context = Context::create();
        let module = squares(&context)?;
        // Hotbed verifies too, but the sooner a front end hears of its mistakes the better.
        module.verify().map_err(|message| message.to_string())?;
        module.write_bitcode_to_memory().as_slice().to_vec()
    };
    let unit = runtime.load(Bitcode::bytes("squares", bitcode).lazy())?;
    println!("loaded: {} functions compiled", runtime.functions_compiled());

    // SAFETY: `squares` below gives these functions these types.
    let (square, sum) = unsafe {
        let square = unit.get::<unsafe extern "C" fn(i64) -> i64>("square")?;
        let sum = unit.get::<unsafe extern "C" fn(*mut c_void) -> i64>("sum_of_squares")?;
        (square, sum)
    };
    // SAFETY: `square` may be called with any number.
    println!("square(12) = {}", unsafe { square(12) });
    println!("called square: {} function compiled", runtime.functions_compiled());

    let mut seen = Vec::new();
    let mut visitor: Visitor<'_> = Box::new(|value| seen.push(value));
    // SAFETY: the unit does nothing with the pointer but give it to `visit`, while this call lasts.
    let total = unsafe { sum((&raw mut visitor).cast()) };
    drop(visitor);
    println!("sum_of_squares() = {total}, of {seen:?}");
    println!(
        "called sum_of_squares: {} functions compiled, and cube is none of them",
        runtime.functions_compiled()
    );

    // What a unit needs has to be there when it is loaded, not only when it is called: so nothing fails half-way.
    let lonely =
        "declare i64 @nobody()\ndefine i64 @lonely() {\n  %1 = call i64 @nobody()\n  ret i64 %1\n}\n";
    match runtime.load(Ir::text("lonely", lonely).lazy()) {
        Ok(_) => return Err("a unit was loaded without what it needs".into()),
        Err(error) => println!("refused: {}", error.to_string().lines().next().unwrap_or_default()),
    }

    // A symbol keeps its unit loaded, so the symbols go first.
    drop((square, sum));
    unit.unload()?;
    Ok(())
}

/// A function of the host that keeps nothing.
extern "C" fn limit() -> i64 {
    4
}

/// A closure of the host. C knows none, so units carry where it is, and hand that back.
type Visitor<'a> = Box<dyn FnMut(i64) + 'a>;

/// Calls the closure that is at `visitor`. It must not panic: no panic may pass through what others compiled.
///
/// # Safety
/// `visitor` points to a [`Visitor`] that nobody else uses during the call.
unsafe extern "C" fn visit(visitor: *mut c_void, value: i64) {
    // SAFETY: as the caller promises.
    let visitor = unsafe { &mut *visitor.cast::<Visitor<'_>>() };
    visitor(value);
}

/// Three functions, in C:
///
/// ```c
/// long square(long x) { return x * x; }
/// long cube(long x) { return x * square(x); }
/// long sum_of_squares(void *visitor) {
///   long sum = 0;
///   for (long i = 1; i <= host_limit(); i++) { long s = square(i); host_visit(visitor, s); sum += s; }
///   return sum;
/// }
/// ```
fn squares(context: &Context) -> Result<Module<'_>, BuilderError> {
    let module = context.create_module("squares");
    let builder = context.create_builder();
    let (long, pointer) = (context.i64_type(), context.ptr_type(AddressSpace::default()));

    // A declaration is enough for what the host has.
    let visit_type = context.void_type().fn_type(&[pointer.into(), long.into()], false);
    let host_visit = module.add_function("host_visit", visit_type, None);
    let host_limit = module.add_function("host_limit", long.fn_type(&[], false), None);

    let square = module.add_function("square", long.fn_type(&[long.into()], false), None);
    builder.position_at_end(context.append_basic_block(square, "entry"));
    let x = square.get_first_param().expect("one parameter").into_int_value();
    builder.build_return(Some(&builder.build_int_mul(x, x, "square")?))?;

    let cube = module.add_function("cube", long.fn_type(&[long.into()], false), None);
    builder.position_at_end(context.append_basic_block(cube, "entry"));
    let x = cube.get_first_param().expect("one parameter").into_int_value();
    let squared = builder.build_call(square, &[x.into()], "squared")?.try_as_basic_value().unwrap_basic();
    builder.build_return(Some(&builder.build_int_mul(squared.into_int_value(), x, "cube")?))?;

    let sum_of_squares = module.add_function("sum_of_squares", long.fn_type(&[pointer.into()], false), None);
    let entry = context.append_basic_block(sum_of_squares, "entry");
    let (head, body, end) = (
        context.append_basic_block(sum_of_squares, "head"),
        context.append_basic_block(sum_of_squares, "body"),
        context.append_basic_block(sum_of_squares, "end"),
    );
    let visitor = sum_of_squares.get_first_param().expect("one parameter");
    builder.position_at_end(entry);
    builder.build_unconditional_branch(head)?;

    builder.position_at_end(head);
    let (i, sum) = (builder.build_phi(long, "i")?, builder.build_phi(long, "sum")?);
    let (i_now, sum_now) = (i.as_basic_value().into_int_value(), sum.as_basic_value().into_int_value());
    let limit = builder.build_call(host_limit, &[], "limit")?.try_as_basic_value().unwrap_basic();
    let more = builder.build_int_compare(IntPredicate::SLE, i_now, limit.into_int_value(), "more")?;
    builder.build_conditional_branch(more, body, end)?;

    builder.position_at_end(body);
    let squared = builder.build_call(square, &[i_now.into()], "squared")?.try_as_basic_value().unwrap_basic();
    builder.build_call(host_visit, &[visitor.into(), squared.into()], "")?;
    let sum_next = builder.build_int_add(sum_now, squared.into_int_value(), "sum")?;
    let i_next = builder.build_int_add(i_now, long.const_int(1, false), "i")?;
    builder.build_unconditional_branch(head)?;
    i.add_incoming(&[(&long.const_int(1, false), entry), (&i_next, body)]);
    sum.add_incoming(&[(&long.const_zero(), entry), (&sum_next, body)]);

    builder.position_at_end(end);
    builder.build_return(Some(&sum_now))?;
    Ok(module)
}
