//! A host as it is shipped: without LLVM, without a plugin, without any way to compile. What it runs was compiled when it
//! was built (`build.rs`) and lies in its executable, as an image.
//!
//! The crate `hotbed` without its feature `jit` is what makes the difference: images are loaded by the same rules as
//! everywhere, and whatever would have to be compiled is refused.

use hotbed::{Image, Runtime, Source, host_fn};
use std::error::Error;

/// The image of `rules.c`.
static RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rules.hbi"));

/// What the rules call: per cent off.
extern "C" fn discount(customer: i32) -> i32 {
    if customer < 100 { 10 } else { 0 }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().no_cache().build()?;
    runtime.define("discount", host_fn!(discount as extern "C" fn(i32) -> i32))?;
    let rules = runtime.load(Image::bytes("rules", RULES))?;
    // SAFETY: `rules.c` declares it so.
    let price = unsafe { rules.get::<unsafe extern "C" fn(i32, i32, i32) -> i32>("price")? };
    for (customer, count) in [(7, 1), (7, 100), (700, 100)] {
        // SAFETY: as above.
        println!("{count} for customer {customer}: {}", unsafe { price(customer, count, 250) });
    }
    // The same rules as for files: an image that is damaged is refused, and says why.
    let mut damaged = RULES.to_vec();
    damaged[RULES.len() / 2] ^= 1;
    match runtime.load(Image::bytes("damaged rules", damaged)) {
        Ok(_) => return Err("a damaged image was loaded".into()),
        Err(error) => println!("refused: {error}"),
    }
    match runtime.load(Source::text("more.c", "int more;")) {
        Ok(_) => Err("there is a compiler".into()),
        Err(error) => {
            println!("refused: {error}");
            Ok(())
        }
    }
}
