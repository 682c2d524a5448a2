//! From a command line to what the library takes: a runtime made as the options say, and one unit of everything that is
//! compiled or linked.

use crate::Status;
use crate::arguments::{Arguments, File, Kind, Options, Piece};
use crate::console::{self, Console};
use hotbed::{Isolation, Lang, Program, ProgramArguments, Runtime};
use hotbed_loader::sys::files::plain;
use std::io::Read;
use std::sync::Arc;

/// A runtime as the options ask for it; with a program's arguments it serves a process that becomes that program.
pub(crate) fn runtime(
    options: &Options,
    program: Option<ProgramArguments>,
) -> Result<Runtime, hotbed::Error> {
    let mut builder =
        Runtime::builder().color(console::color()).observer(Arc::new(Console::new(options.verbose)));
    if options.no_cache {
        builder = builder.no_cache();
    } else if let Some(dir) = options.cache_dir {
        builder = builder.cache_dir(dir);
    }
    if let Some(size) = options.cache_size {
        builder = builder.cache_size(size);
    }
    builder = options.cache_layers.iter().fold(builder, |builder, layer| builder.cache_layer(layer));
    if let Some(level) = options.cpu {
        builder = builder.cpu(level);
    }
    builder = builder.autoload(options.autoload);
    if options.isolate {
        builder = builder.isolation(Isolation::Process);
    }
    if let Some(folder) = options.jitdump {
        builder = builder.jitdump(folder);
    }
    builder = builder.gdb(options.gdb);
    if let Some(file) = options.trace {
        builder = builder.trace(file);
    }
    if let Some(program) = program {
        builder = builder.program(program).global_libraries(true).speculate(true);
    }
    builder.build()
}

/// Makes sure that every file can be looked at, before anything is loaded.
pub(crate) fn readable(parsed: &Arguments) -> Result<(), Status> {
    for file in parsed.files().filter(|file| file.argument != c"-") {
        let found = std::fs::metadata(file.path()).and_then(|found| {
            if found.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(()) }
        });
        if let Err(error) = found {
            console::say(&format!("error: cannot read {}: {}", file.path().display(), plain(&error)));
            return Err(Status::Failure);
        }
    }
    Ok(())
}

/// One unit of all sources, IR, objects and archives, flags in order; nothing when only images and shared libraries are
/// given. Standard input is read to its end.
pub(crate) fn program(parsed: &Arguments) -> Result<Option<Program>, Status> {
    let mut program = Program::new();
    let mut name = None;
    for piece in &parsed.pieces {
        match piece {
            Piece::Flag(flag) => program = program.flag(*flag),
            Piece::File(file) => {
                let Kind::Input(lang) = file.kind else { continue };
                name.get_or_insert_with(|| file.path().to_string_lossy());
                program = if file.argument == c"-" {
                    program.bytes("<stdin>", lang, standard_input(lang)?)
                } else {
                    program.file_as(file.path(), lang)
                };
            }
        }
    }
    Ok(name.map(|name| program.named(name)))
}

fn standard_input(lang: Lang) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            console::say(&format!("error: cannot read {lang:?} from standard input: {}", plain(&error)));
            Err(Status::Failure)
        }
    }
}

/// The files' names, for messages.
pub(crate) fn names(parsed: &Arguments) -> String {
    let names: Vec<_> = parsed.files().map(|file: &File| file.argument.to_string_lossy()).collect();
    names.join(", ")
}
