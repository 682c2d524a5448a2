//! Which functions are compiled together.
//!
//! A group is what calls for it: a function, with callees that are small, because they are likely to be reached and cost
//! little. Whoever compiles at the first call grows groups one by one ([`cluster`]) and reads no other bodies. Whoever has
//! read them all ([`plan`]) also keeps together what calls each other in a circle, and gives a local function to its
//! only caller: there it may become local again, which lets the optimiser dissolve it.

use super::{Body, Facts, Kind, Number};
use std::collections::{HashMap, HashSet, VecDeque};

/// How groups are made.
#[derive(Debug, Clone, Copy)]
pub struct PlanOptions {
    /// Most functions of a group; with 1 every function is a group.
    pub most: usize,
    /// Callees up to this size ([`Symbol::size`](super::Symbol::size)) come along.
    pub small: u32,
    /// No group grows beyond this size.
    pub total: u32,
}

/// How a unit is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Functions for a piece each; every function that pieces define is in one of them.
    pub groups: Vec<Vec<Number>>,
    /// Those that nobody but their group refers to ([`Unit::keep_local`](super::Unit::keep_local)).
    pub local: Vec<Number>,
}

impl PlanOptions {
    /// Every function by itself.
    pub const SINGLE: Self = Self { most: 1, small: 0, total: 0 };
    /// Small callees with their callers.
    pub const SMALL: Self = Self { most: 16, small: 512, total: 8192 };
}

/// Grows a group around `start` out of functions that `take` takes: it says no to one that somebody else has. `body` reads
/// the body of a function.
///
/// # Errors
/// Those of `body`.
pub fn cluster<E>(
    start: Number,
    facts: &Facts,
    options: &PlanOptions,
    take: impl FnMut(Number) -> bool,
    mut body: impl FnMut(Number) -> Result<Body, E>,
) -> Result<Vec<Number>, E> {
    let mut growing = Growing::new(&[start], facts, options, take);
    while growing.wants_more()
        && let Some(function) = growing.open.pop_front()
    {
        for callee in body(function)?.calls {
            growing.offer(callee, options.small);
        }
    }
    Ok(growing.members)
}

/// Puts every function of a unit into a group. `bodies` are those of all functions that pieces define.
pub fn plan(facts: &Facts, bodies: &HashMap<Number, Body>, options: &PlanOptions) -> Plan {
    let callers = callers_of_local(facts, bodies);
    let mut taken = HashSet::new();
    let (mut groups, mut local) = (Vec::new(), Vec::new());
    // Callers come before callees, so that these find the group they belong to.
    for circle in circles(facts, bodies).into_iter().rev() {
        let fits = circle.len() <= options.most && size(facts, &circle) <= u64::from(options.total);
        for start in if fits { vec![circle.as_slice()] } else { circle.chunks(1).collect() } {
            let start: Vec<Number> = start.iter().copied().filter(|one| !taken.contains(one)).collect();
            if start.is_empty() {
                continue;
            }
            taken.extend(&start);
            let mut growing = Growing::new(&start, facts, options, |callee| taken.insert(callee));
            while growing.wants_more()
                && let Some(function) = growing.open.pop_front()
            {
                for &callee in bodies.get(&function).map_or(&[][..], |body| &body.calls) {
                    let only = callers.get(&callee).is_some_and(|callers| callers.len() == 1);
                    growing.offer(callee, if only { options.total } else { options.small });
                }
            }
            let members = growing.members;
            let inside: HashSet<Number> = members.iter().copied().collect();
            let only_here = |function: &&Number| {
                let callers = callers.get(*function);
                members.len() > 1 && callers.is_some_and(|all| all.iter().all(|one| inside.contains(one)))
            };
            local.extend(members.iter().filter(only_here));
            groups.push(members);
        }
    }
    Plan { groups, local }
}

/// A group that is being made.
struct Growing<'a, F> {
    facts: &'a Facts,
    options: &'a PlanOptions,
    take: F,
    members: Vec<Number>,
    /// Members whose callees were not looked at.
    open: VecDeque<Number>,
    size: u64,
}

impl<'a, F: FnMut(Number) -> bool> Growing<'a, F> {
    fn new(start: &[Number], facts: &'a Facts, options: &'a PlanOptions, take: F) -> Self {
        let size = size(facts, start);
        Self { facts, options, take, members: start.to_vec(), open: start.iter().copied().collect(), size }
    }

    fn wants_more(&self) -> bool {
        self.members.len() < self.options.most && self.size < u64::from(self.options.total)
    }

    /// Takes a callee that is not larger than `most` if there is room.
    fn offer(&mut self, callee: Number, most: u32) {
        let Some(symbol) = self.facts.get(callee) else { return };
        let size = self.size + u64::from(symbol.size);
        if symbol.kind == Kind::Function
            && symbol.linkage.is_definition()
            && !symbol.always_inline
            && symbol.size <= most
            && size <= u64::from(self.options.total)
            && self.members.len() < self.options.most
            && (self.take)(callee)
        {
            self.size = size;
            self.members.push(callee);
            self.open.push_back(callee);
        }
    }
}

fn size(facts: &Facts, functions: &[Number]) -> u64 {
    functions.iter().filter_map(|&function| facts.get(function)).map(|symbol| u64::from(symbol.size)).sum()
}

/// The functions that nothing but calls of the unit refers to, with their callers. Always-inlined functions are in many
/// pieces, and so are their calls.
fn callers_of_local(facts: &Facts, bodies: &HashMap<Number, Body>) -> HashMap<Number, Vec<Number>> {
    let plain = |&function: &Number| {
        let symbol = &facts.symbols[function as usize];
        symbol.local && !symbol.used && !symbol.address_in_data
    };
    let mut callers: HashMap<Number, Vec<Number>> =
        facts.functions().filter(plain).map(|function| (function, Vec::new())).collect();
    for start in &facts.starts {
        callers.remove(&start.function);
    }
    for mentioned in bodies.values().flat_map(|body| &body.mentions) {
        callers.remove(mentioned);
    }
    for (&caller, body) in bodies {
        for callee in &body.calls {
            if facts.symbols[caller as usize].always_inline {
                callers.remove(callee);
            } else if let Some(list) = callers.get_mut(callee) {
                list.push(caller);
            }
        }
    }
    callers.retain(|_, list| !list.is_empty());
    callers
}

/// The strongly connected parts of the graph of calls, callees before callers (Tarjan's algorithm, without recursion).
fn circles(facts: &Facts, bodies: &HashMap<Number, Body>) -> Vec<Vec<Number>> {
    const UNSEEN: u32 = u32::MAX;
    const DONE: u32 = u32::MAX - 1;
    let mut order = vec![UNSEEN; facts.symbols.len()];
    let mut low = order.clone();
    let mut next = 0;
    let (mut path, mut stack, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let calls = |function: Number| bodies.get(&function).map_or(&[][..], |body| &body.calls);
    let mut enter = |function: Number, order: &mut [u32], low: &mut [u32], stack: &mut Vec<Number>| {
        order[function as usize] = next;
        low[function as usize] = next;
        next += 1;
        stack.push(function);
    };
    for root in facts.functions() {
        if order[root as usize] != UNSEEN {
            continue;
        }
        enter(root, &mut order, &mut low, &mut stack);
        path.push((root, 0));
        while let Some((function, position)) = path.last_mut() {
            let function = *function;
            if let Some(&callee) = calls(function).get(*position) {
                *position += 1;
                let is_function = bodies.contains_key(&callee);
                match order[callee as usize] {
                    UNSEEN if is_function => {
                        enter(callee, &mut order, &mut low, &mut stack);
                        path.push((callee, 0));
                    }
                    UNSEEN | DONE => {}
                    seen => low[function as usize] = low[function as usize].min(seen),
                }
                continue;
            }
            path.pop();
            if let Some(&(caller, _)) = path.last() {
                low[caller as usize] = low[caller as usize].min(low[function as usize]);
            }
            if low[function as usize] == order[function as usize] {
                let begin = stack.iter().rposition(|&one| one == function).unwrap_or(0);
                let circle = stack.split_off(begin);
                for &one in &circle {
                    order[one as usize] = DONE;
                }
                found.push(circle);
            }
        }
    }
    found
}
