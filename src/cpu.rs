//! Code for certain processors: how the compiler is told, and which variant of an image serves.

use crate::error::Error;
use hotbed_loader::boundary::{Argument, Failure, FailureKind, Request};
use hotbed_loader::cpu::{CpuFeatures, CpuLevel};
use hotbed_loader::image::{self, Variant, note};

/// Flags that choose a processor, whatever follows them.
const CHOOSING: [&str; 2] = ["-march", "-mcpu"];

/// Has everything that is compiled for `request` compiled for processors of `level`.
///
/// # Errors
/// When a flag chooses a processor already.
pub(crate) fn compile_for(request: &mut Request, level: CpuLevel) -> Result<(), Error> {
    if !request.inputs().any(|input| input.lang.is_compiled()) {
        return Ok(());
    }
    let own = request.arguments.iter().find_map(|argument| match argument {
        Argument::Flag(flag) => Some(flag).filter(|flag| CHOOSING.iter().any(|one| flag.starts_with(one))),
        Argument::Input(_) => None,
    });
    if let Some(own) = own {
        let unit = &request.unit;
        let message = format!("cannot compile {unit} for {level}: {own} says for which processor it is");
        return Err(Error::of_failure(unit, Failure::new(FailureKind::Usage, message)));
    }
    let mut flags = level.features().flags();
    if level == CpuLevel::Native {
        // Which instructions there are is known; how fast each is, LLVM knows.
        flags.push("-mtune=native".to_owned());
    }
    request.arguments.splice(..0, flags.into_iter().map(Argument::Flag));
    Ok(())
}

/// An image that the user named, intact, and which of its variants serves.
pub(crate) struct Chosen<'a> {
    pub(crate) variants: Vec<Variant<'a>>,
    /// The place of that one.
    pub(crate) at: usize,
    /// The checksum in its note.
    pub(crate) checksum: [u8; 32],
}

impl<'a> Chosen<'a> {
    /// Chooses among the variants of the image in `file`, for a processor that has what `cpu` says.
    ///
    /// # Errors
    /// When it is no image, is damaged, or the processor can run none of them.
    pub(crate) fn of(unit: &str, file: &'a [u8], cpu: impl FnOnce() -> CpuFeatures) -> Result<Self, Error> {
        let fail = |source| Error::Image { unit: unit.to_owned(), source };
        let variants = image::intact_variants(file).map_err(fail)?;
        let requires: Vec<CpuFeatures> = variants.iter().map(|variant| variant.requires).collect();
        // What every processor has is not looked for.
        let anybody = requires == [CpuFeatures::NONE];
        let at = if anybody { 0 } else { image::choose(&requires, cpu()).map_err(fail)? };
        let checksum = note::recorded_checksum(variants[at].bytes).map_err(fail)?;
        Ok(Self { variants, at, checksum })
    }

    /// The variant that serves.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.variants[self.at].bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::input::{Kind, Load, Object, Source};

    fn flags(load: impl Into<Load>, level: CpuLevel) -> Result<Vec<String>, Error> {
        let load = load.into();
        let Kind::Compile(compilation) = load.kind else { unreachable!("something to compile") };
        let mut request = compilation.request(&load.name, false).unwrap();
        compile_for(&mut request, level)?;
        let flags = request.arguments.into_iter().filter_map(|argument| match argument {
            Argument::Flag(flag) => Some(flag),
            Argument::Input(_) => None,
        });
        Ok(flags.collect())
    }

    #[test]
    fn a_level_is_said_to_the_compiler_unless_a_flag_says_another() {
        let source = || Source::file("a.c").flags(["-O2", "-mno-avx512f"]);
        let of_v3 = flags(source(), CpuLevel::V3).unwrap();
        assert_eq!(of_v3, ["-march=x86-64-v3", "-O2", "-mno-avx512f"]);
        assert!(flags(source(), CpuLevel::Native).unwrap().contains(&"-mtune=native".to_owned()));
        // Nothing is compiled.
        assert!(flags(Object::file("a.o"), CpuLevel::V3).unwrap().is_empty());
        for own in ["-march=native", "-mcpu=haswell"] {
            let error = flags(source().flags([own]), CpuLevel::V2).unwrap_err();
            let text = error.to_string();
            assert!(error.is_usage() && text.contains(own) && text.contains("x86-64-v2"), "{text}");
        }
    }
}
