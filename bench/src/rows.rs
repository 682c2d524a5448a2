//! The rows, one file a topic. A new row is a function that gives an outcome, a line in its topic's table, and a bar in
//! `bench/bars.tsv`.

mod compile;
mod load;
mod start;

use crate::row::Row;

/// Every row, in the order in which they are shown and measured.
pub(crate) const ALL: &[Row] = &[
    start::HELLO_EXE,
    start::HELLO_TCC,
    start::SQLITE_EXE,
    compile::SOURCE_TO_CALL,
    load::IMAGE_CALL,
    load::OBJECT_TO_CALL,
    load::CHAIN_4000,
    compile::WORKER,
    start::WARM_COMPILES,
];
