//! What a user of Hotbed sees, in one test binary: the library and the command, each against clang's own result.
//!
//! One file a topic. The real libraries have to be under `.cache/inputs` (`scripts/fetch-inputs`), and the plugin and
//! the command have to be built (`cargo build --workspace`); `make test` does both.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

mod archives;
mod as_executed;
mod autoload;
mod bad_input;
mod beginning_and_end;
mod build_image;
mod cache;
mod debuggers;
mod dependencies;
mod examples;
mod exceptions;
mod explain;
mod groups;
mod hostile_inputs;
mod image_shape;
mod inputs;
mod inspect;
mod lazy;
mod lazy_libraries;
mod libraries;
mod library_paths;
mod mutated;
mod named_image;
mod names;
mod namespaces;
mod packages;
mod profilers;
mod release_host;
mod reuse;
mod rules;
mod seen;
mod specialisations;
mod store;
mod support;
mod thread_locals;
mod traced_images;
mod unloading;
mod unwinders;
mod variants;
mod worker;
