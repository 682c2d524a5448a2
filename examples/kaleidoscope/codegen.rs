//! One function to one module of LLVM IR.
//!
//! Every value is a double. Variables live in memory, in the function's first block, where LLVM finds and promotes them. What is
//! called is declared by its symbol; who has it is not known here.

use crate::ast::{Expr, For, Function, Kind, binary_name, unary_name};
use crate::parser::parameters_of;
use crate::source::{Position, Problem};
use inkwell::FloatPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::{BasicMetadataTypeEnum, FloatType};
use inkwell::values::{BasicMetadataValueEnum, FloatValue, FunctionValue, IntValue, PointerValue};

/// How a function is called.
#[derive(Debug, Clone)]
pub(crate) struct Callee {
    pub(crate) symbol: String,
    pub(crate) parameters: usize,
}

/// A function that another one calls.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) name: String,
    pub(crate) symbol: String,
    /// Where it is called first.
    pub(crate) at: Position,
}

/// A function's module, and what it calls.
pub(crate) struct Made<'ctx> {
    pub(crate) module: Module<'ctx>,
    pub(crate) needs: Vec<Need>,
}

/// Makes a module with `function` under `symbol`. `find` says which functions there are, the new one among them.
pub(crate) fn make<'ctx>(
    context: &'ctx Context,
    symbol: &str,
    function: &Function,
    find: &dyn Fn(&str) -> Option<Callee>,
) -> Result<Made<'ctx>, Problem> {
    let at = function.prototype.at;
    let module = context.create_module(symbol);
    let mut body = Body::new(context, &module, symbol, function.prototype.parameters.len(), find);
    let needs = match body.fill(function) {
        Ok(()) => body.needs,
        Err(Failure::Problem(problem)) => return Err(problem),
        Err(Failure::Builder(error)) => {
            return Err(Problem::new(at, format!("LLVM cannot build this: {error}")));
        }
    };
    module.verify().map_err(|message| Problem::new(at, format!("LLVM does not take this: {message}")))?;
    Ok(Made { module, needs })
}

/// Why there is no code.
enum Failure {
    /// The program is wrong.
    Problem(Problem),
    /// LLVM refuses an instruction, which no program should bring about.
    Builder(BuilderError),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<BuilderError> for Failure {
    fn from(error: BuilderError) -> Self {
        Self::Builder(error)
    }
}

type Built<T> = Result<T, Failure>;

/// A function on its way.
struct Body<'a, 'ctx> {
    context: &'ctx Context,
    module: &'a Module<'ctx>,
    function: FunctionValue<'ctx>,
    double: FloatType<'ctx>,
    /// At the end of what is built so far.
    builder: Builder<'ctx>,
    /// In the first block, which has the variables and nothing else.
    places: Builder<'ctx>,
    /// What names mean; the last one counts.
    variables: Vec<(String, PointerValue<'ctx>)>,
    find: &'a dyn Fn(&str) -> Option<Callee>,
    needs: Vec<Need>,
}

impl<'a, 'ctx> Body<'a, 'ctx> {
    fn new(
        context: &'ctx Context,
        module: &'a Module<'ctx>,
        symbol: &str,
        parameters: usize,
        find: &'a dyn Fn(&str) -> Option<Callee>,
    ) -> Self {
        let double = context.f64_type();
        let function = declare(module, double, symbol, parameters);
        let (builder, places) = (context.create_builder(), context.create_builder());
        let (variables, needs) = (Vec::new(), Vec::new());
        Self { context, module, function, double, builder, places, variables, find, needs }
    }

    fn fill(&mut self, function: &Function) -> Built<()> {
        let first = self.block("places");
        let start = self.block("start");
        self.places.position_at_end(first);
        self.builder.position_at_end(start);
        for (name, value) in function.prototype.parameters.iter().zip(self.function.get_params()) {
            let value = value.into_float_value();
            value.set_name(name);
            self.define(name, value)?;
        }
        let value = self.value(&function.body)?;
        self.builder.build_return(Some(&value))?;
        self.places.build_unconditional_branch(start)?;
        Ok(())
    }

    fn value(&mut self, expression: &Expr) -> Built<FloatValue<'ctx>> {
        match &expression.kind {
            Kind::Number(number) => Ok(self.double.const_float(*number)),
            Kind::Variable(name) => {
                let place = self.place(name, expression.at)?;
                Ok(self.builder.build_load(self.double, place, name)?.into_float_value())
            }
            Kind::Assign(name, value) => {
                let value = self.value(value)?;
                let place = self.place(name, expression.at)?;
                self.builder.build_store(place, value)?;
                Ok(value)
            }
            Kind::Call(name, arguments) => self.call(name, expression.at, arguments.iter()),
            Kind::Unary(operator, operand) => self.unary(*operator, expression.at, operand),
            Kind::Binary(operator, sides) => self.binary(*operator, expression.at, sides),
            Kind::If(parts) => self.choice(parts),
            Kind::For(round) => self.round(round),
            Kind::Var(variables, body) => self.scope(variables, body),
        }
    }

    /// A function with a name and arguments; what a program says about operators comes before what they are built in as.
    fn call<'e>(
        &mut self,
        name: &str,
        at: Position,
        arguments: impl ExactSizeIterator<Item = &'e Expr>,
    ) -> Built<FloatValue<'ctx>> {
        let Some(Callee { symbol, parameters }) = (self.find)(name) else {
            let message =
                format!("there is no function `{name}`; one that comes later is made known by `extern`");
            return Err(Problem::new(at, message).into());
        };
        if arguments.len() != parameters {
            let message = format!("`{name}` has {}, not {}", parameters_of(parameters), arguments.len());
            return Err(Problem::new(at, message).into());
        }
        let values = arguments.map(|argument| Ok(BasicMetadataValueEnum::from(self.value(argument)?)));
        let values: Vec<_> = values.collect::<Built<_>>()?;
        let callee = match self.module.get_function(&symbol) {
            Some(function) => function,
            None => {
                let function = declare(self.module, self.double, &symbol, parameters);
                self.needs.push(Need { name: name.to_owned(), symbol, at });
                function
            }
        };
        let call = self.builder.build_call(callee, &values, "value")?;
        Ok(call.try_as_basic_value().unwrap_basic().into_float_value())
    }

    fn unary(&mut self, operator: char, at: Position, operand: &Expr) -> Built<FloatValue<'ctx>> {
        let name = unary_name(operator);
        if operator != '-' || (self.find)(&name).is_some() {
            return self.call(&name, at, [operand].into_iter());
        }
        let value = self.value(operand)?;
        Ok(self.builder.build_float_neg(value, "minus")?)
    }

    fn binary(&mut self, operator: char, at: Position, sides: &[Expr; 2]) -> Built<FloatValue<'ctx>> {
        let name = binary_name(operator);
        if !matches!(operator, '+' | '-' | '*' | '/' | '<' | '>') || (self.find)(&name).is_some() {
            return self.call(&name, at, sides.iter());
        }
        let (left, right) = (self.value(&sides[0])?, self.value(&sides[1])?);
        let builder = &self.builder;
        Ok(match operator {
            '+' => builder.build_float_add(left, right, "sum")?,
            '-' => builder.build_float_sub(left, right, "difference")?,
            '*' => builder.build_float_mul(left, right, "product")?,
            '/' => builder.build_float_div(left, right, "quotient")?,
            _ => {
                let order = if operator == '<' { FloatPredicate::OLT } else { FloatPredicate::OGT };
                let truth = builder.build_float_compare(order, left, right, "truth")?;
                builder.build_unsigned_int_to_float(truth, self.double, "truth")?
            }
        })
    }

    fn choice(&mut self, parts: &[Expr; 3]) -> Built<FloatValue<'ctx>> {
        let [condition, then, otherwise] = parts;
        let truth = self.truth(condition)?;
        let (yes, no, after) = (self.block("then"), self.block("else"), self.block("after"));
        self.builder.build_conditional_branch(truth, yes, no)?;
        let mut arms = Vec::with_capacity(2);
        for (block, arm) in [(yes, then), (no, otherwise)] {
            self.builder.position_at_end(block);
            let value = self.value(arm)?;
            // The arm may have ended in another block than it began in.
            let end = self.builder.get_insert_block().ok_or(BuilderError::UnsetPosition)?;
            self.builder.build_unconditional_branch(after)?;
            arms.push((value, end));
        }
        self.builder.position_at_end(after);
        let chosen = self.builder.build_phi(self.double, "chosen")?;
        arms.iter().for_each(|(value, end)| chosen.add_incoming(&[(value, *end)]));
        Ok(chosen.as_basic_value().into_float_value())
    }

    /// The condition is looked at before every round, the first one too. The value of all of it is 0.
    fn round(&mut self, round: &For) -> Built<FloatValue<'ctx>> {
        let start = self.value(&round.start)?;
        let place = self.define(&round.variable, start)?;
        let (head, inner, after) = (self.block("head"), self.block("round"), self.block("after"));
        self.builder.build_unconditional_branch(head)?;

        self.builder.position_at_end(head);
        let more = self.truth(&round.condition)?;
        self.builder.build_conditional_branch(more, inner, after)?;

        self.builder.position_at_end(inner);
        self.value(&round.body)?;
        let step = match &round.step {
            Some(step) => self.value(step)?,
            None => self.double.const_float(1.0),
        };
        // Read after the body, which may have changed it.
        let now = self.builder.build_load(self.double, place, &round.variable)?.into_float_value();
        let next = self.builder.build_float_add(now, step, "next")?;
        self.builder.build_store(place, next)?;
        self.builder.build_unconditional_branch(head)?;

        self.builder.position_at_end(after);
        self.variables.pop();
        Ok(self.double.const_zero())
    }

    fn scope(&mut self, variables: &[(String, Option<Expr>)], body: &Expr) -> Built<FloatValue<'ctx>> {
        let outside = self.variables.len();
        for (name, value) in variables {
            let value = match value {
                Some(value) => self.value(value)?,
                None => self.double.const_zero(),
            };
            self.define(name, value)?;
        }
        let value = self.value(body)?;
        self.variables.truncate(outside);
        Ok(value)
    }

    /// Whether a value is not 0; what is no number is not.
    fn truth(&mut self, expression: &Expr) -> Built<IntValue<'ctx>> {
        let value = self.value(expression)?;
        Ok(self.builder.build_float_compare(FloatPredicate::ONE, value, self.double.const_zero(), "truth")?)
    }

    /// A new variable with that value.
    fn define(&mut self, name: &str, value: FloatValue<'ctx>) -> Built<PointerValue<'ctx>> {
        let place = self.places.build_alloca(self.double, name)?;
        self.builder.build_store(place, value)?;
        self.variables.push((name.to_owned(), place));
        Ok(place)
    }

    fn place(&self, name: &str, at: Position) -> Built<PointerValue<'ctx>> {
        let found = self.variables.iter().rev().find(|(variable, _)| variable == name);
        let place = found.map(|(_, place)| *place);
        place.ok_or_else(|| Problem::new(at, format!("there is no variable `{name}`")).into())
    }

    fn block(&self, name: &str) -> BasicBlock<'ctx> {
        self.context.append_basic_block(self.function, name)
    }
}

fn declare<'ctx>(
    module: &Module<'ctx>,
    double: FloatType<'ctx>,
    symbol: &str,
    parameters: usize,
) -> FunctionValue<'ctx> {
    let parameters = vec![BasicMetadataTypeEnum::from(double); parameters];
    module.add_function(symbol, double.fn_type(&parameters, false), None)
}
