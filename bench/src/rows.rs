//! The rows, one file a topic. A new row is a function that gives an outcome, a line in its topic's table, and a bar in
//! `bench/bars.tsv`.

mod again;
mod autoload;
mod calls;
pub(crate) mod compile;
mod image;
mod images;
mod jolt;
mod lazy_runs;
mod lazy_sessions;
mod lazy_units;
mod load;
mod lookup;
mod scale;
mod start;
mod steady;
mod throw;
mod traced;

use crate::generated;
use crate::row::Row;
use crate::side::Side;

/// Every row, in the order in which they are shown and measured.
pub(crate) const ALL: &[Row] = &[
    start::HELLO_EXE,
    start::HELLO_TCC,
    start::SQLITE_EXE,
    compile::SOURCE_TO_CALL,
    image::FIRST_IMAGE_CALL,
    load::OBJECT_TO_CALL,
    load::CHAIN_4000,
    compile::WORKER,
    start::WARM_COMPILES,
    image::IMAGE_CALL,
    image::IMAGE_CALL_PREFERRED,
    image::IMAGE_FLOOR,
    image::IMAGE_CALL_CROWDED,
    images::IMAGES_50,
    images::IMAGES_50_MEMORY,
    lookup::LOOKUP_HIT,
    lookup::LOOKUP_MISS,
    calls::IMPORT_CALL,
    autoload::AUTOLOAD_HIT,
    autoload::AUTOLOAD_MISS,
    throw::THROW_10000,
    throw::THROW_LOAD,
    scale::UNITS_100000,
    scale::UNLOAD_MEMORY,
    scale::UNLOAD_MAPPINGS,
    lazy_runs::SQLITE_BC_LLI,
    lazy_runs::SQLITE_BC_MCJIT,
    lazy_runs::SQLITE_SRC_O0,
    lazy_runs::SQLITE_SRC_O2,
    lazy_units::ALL_CALLED,
    lazy_units::FEW_CALLED,
    lazy_sessions::SMALL_FUNCTION,
    lazy_sessions::FUNCTIONS_100000,
    lazy_sessions::MAPPINGS_100000,
    steady::LAZY,
    lazy_runs::SECOND_RUN,
    lazy_units::TWO_THREADS,
    traced::WARM,
    traced::WARM_COMPILES,
    jolt::BIND,
    traced::FIRST_CALL,
    steady::IMAGE,
    again::STORE_HIT,
    again::ONE_FUNCTION,
    jolt::PRIVATE_MEMORY,
];

/// Every side that has a process of its own.
pub(crate) const SIDES: &[Side] = &[
    generated::BUILD_IMAGES,
    images::OUR_MEMORY,
    images::PEER_MEMORY,
    lookup::OUR_LOOKUP,
    lookup::PEER_LOOKUP,
    autoload::OUR_HIT,
    autoload::PEER_HIT,
    throw::AMONG_UNITS,
    throw::AFTER_LOADS,
    scale::UNITS,
    scale::UNLOADS,
    lazy_sessions::FUNCTIONS,
];
