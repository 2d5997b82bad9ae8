//! Several instructions of a program that one instruction does.

use ballast_plan::EltOp;

use super::program::{Drafted, Ref};

/// Replaces what one instruction can do, and drops what nobody reads any more. The last instruction stays the result.
pub(super) fn shorten(code: &mut Vec<Drafted>) {
    for at in 0..code.len() {
        if let Some(x) = hard_swish(code, at) {
            code[at] = (EltOp::HardSwish, vec![x], 0.0);
        }
    }
    drop_unused(code);
}

fn made(code: &[Drafted], r: Ref) -> Option<&Drafted> {
    match r {
        Ref::Made(i) => code.get(i),
        Ref::Input(_) => None,
    }
}

/// The operand of an instruction with one operand and this immediate.
fn immediate(code: &[Drafted], r: Ref, op: EltOp, wanted: impl Fn(f32) -> bool) -> Option<Ref> {
    let (found, args, imm) = made(code, r)?;
    (*found == op && wanted(*imm)).then(|| args.first().copied())?
}

/// Nearly: exporters write a sixth with seven digits or as the float that is nearest.
fn is_sixth(c: f32) -> bool {
    (c * 6.0 - 1.0).abs() < 1e-6
}

/// `a` where `r` is `a ÷ 6`.
fn sixth_of(code: &[Drafted], r: Ref) -> Option<Ref> {
    if let Some(a) = immediate(code, r, EltOp::MulImm, is_sixth) {
        return Some(a);
    }
    let (EltOp::Div, args, _) = made(code, r)? else { return None };
    let (EltOp::Const, _, c) = made(code, *args.get(1)?)? else { return None };
    (*c == 6.0).then_some(args[0])
}

/// `a` where `r` is `min(max(a, 0), high)`, bounds in either order.
fn clip(code: &[Drafted], r: Ref, high: f32) -> Option<Ref> {
    let (is_low, is_high) = (|c| c == 0.0, |c| c == high);
    if let Some(inner) = immediate(code, r, EltOp::MinImm, is_high) {
        return immediate(code, inner, EltOp::MaxImm, is_low);
    }
    immediate(code, immediate(code, r, EltOp::MaxImm, is_low)?, EltOp::MinImm, is_high)
}

/// `x` where `r` is `min(max(x + 3, 0), 6)`.
fn gate_of_six(code: &[Drafted], r: Ref) -> Option<Ref> {
    immediate(code, clip(code, r, 6.0)?, EltOp::AddImm, |c| c == 3.0)
}

/// `x` where `r` is `min(max(x ÷ 6 + ½, 0), 1)`, or a gate of six divided by six.
fn gate_of_one(code: &[Drafted], r: Ref) -> Option<Ref> {
    if let Some(x) = sixth_of(code, r).and_then(|gate| gate_of_six(code, gate)) {
        return Some(x);
    }
    sixth_of(code, immediate(code, clip(code, r, 1.0)?, EltOp::AddImm, |c| c == 0.5)?)
}

/// `x` where the instruction computes `x · min(max(x + 3, 0), 6) ÷ 6` in one of the forms that models have.
fn hard_swish(code: &[Drafted], at: usize) -> Option<Ref> {
    let gated = |r: Ref, gate: &dyn Fn(&[Drafted], Ref) -> Option<Ref>| {
        let (EltOp::Mul, args, _) = made(code, r)? else { return None };
        let &[a, b] = args.as_slice() else { return None };
        let of = |x: Ref, g: Ref| (gate(code, g) == Some(x)).then_some(x);
        of(a, b).or_else(|| of(b, a))
    };
    let whole = Ref::Made(at);
    sixth_of(code, whole).and_then(|product| gated(product, &gate_of_six)).or_else(|| gated(whole, &gate_of_one))
}

/// Drops what nobody reads. The last instruction stays the result.
pub(super) fn drop_unused(code: &mut Vec<Drafted>) {
    let mut needed = vec![false; code.len()];
    if let Some(last) = needed.last_mut() {
        *last = true;
    }
    for (at, (_, args, _)) in code.iter().enumerate().rev() {
        if needed[at] {
            for arg in args {
                if let Ref::Made(i) = arg {
                    needed[*i] = true;
                }
            }
        }
    }
    // Where each one that stays comes to stand.
    let mut place = Vec::with_capacity(code.len());
    let mut kept = 0;
    for &stays in &needed {
        place.push(kept);
        kept += usize::from(stays);
    }
    let mut needed = needed.into_iter();
    code.retain(|_| needed.next().unwrap_or(false));
    for arg in code.iter_mut().flat_map(|(_, args, _)| args) {
        if let Ref::Made(i) = arg {
            *i = place[*i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The operations that are left of a program.
    fn program(code: &[(EltOp, &[Ref], f32)]) -> Vec<EltOp> {
        let mut code: Vec<Drafted> = code.iter().map(|&(op, args, imm)| (op, args.to_vec(), imm)).collect();
        shorten(&mut code);
        code.iter().map(|(op, ..)| *op).collect()
    }

    const X: Ref = Ref::Input(0);
    const SIXTH: f32 = 1.0 / 6.0;

    #[test]
    fn hard_swish_is_found_in_every_form_that_exporters_write() {
        use EltOp::*;
        use Ref::Made;
        let divided_last: [(EltOp, &[Ref], f32); 6] = [
            (AddImm, &[X], 3.0),
            (MaxImm, &[Made(0)], 0.0),
            (MinImm, &[Made(1)], 6.0),
            (Mul, &[X, Made(2)], 0.0),
            (Const, &[], 6.0),
            (Div, &[Made(3), Made(4)], 0.0),
        ];
        assert_eq!(program(&divided_last), [HardSwish]);
        let gate_divided: [(EltOp, &[Ref], f32); 5] = [
            (AddImm, &[X], 3.0),
            (MinImm, &[Made(0)], 6.0),
            (MaxImm, &[Made(1)], -0.0),
            (MulImm, &[Made(2)], SIXTH),
            (Mul, &[Made(3), X], 0.0),
        ];
        assert_eq!(program(&gate_divided), [HardSwish]);
        let hard_sigmoid: [(EltOp, &[Ref], f32); 5] = [
            (MulImm, &[X], 0.166_666_7),
            (AddImm, &[Made(0)], 0.5),
            (MaxImm, &[Made(1)], 0.0),
            (MinImm, &[Made(2)], 1.0),
            (Mul, &[X, Made(3)], 0.0),
        ];
        assert_eq!(program(&hard_sigmoid), [HardSwish]);
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        use EltOp::*;
        use Ref::Made;
        let with = |shift: f32, high: f32, factor: f32, other: Ref| {
            program(&[
                (AddImm, &[X], shift),
                (MaxImm, &[Made(0)], 0.0),
                (MinImm, &[Made(1)], high),
                (Mul, &[other, Made(2)], 0.0),
                (MulImm, &[Made(3)], factor),
            ])
        };
        assert_eq!(with(3.0, 6.0, SIXTH, X), [HardSwish]);
        for (shift, high, factor, other) in
            [(2.0, 6.0, SIXTH, X), (3.0, 5.0, SIXTH, X), (3.0, 6.0, 0.2, X), (3.0, 6.0, SIXTH, Ref::Input(1))]
        {
            assert_eq!(with(shift, high, factor, other).len(), 5);
        }
    }

    #[test]
    fn what_others_read_stays_and_moves_up() {
        use EltOp::*;
        use Ref::Made;
        // The gate is read once more, behind the swish.
        let mut code: Vec<Drafted> = vec![
            (Neg, vec![X], 0.0),
            (AddImm, vec![X], 3.0),
            (MaxImm, vec![Made(1)], 0.0),
            (MinImm, vec![Made(2)], 6.0),
            (Mul, vec![X, Made(3)], 0.0),
            (MulImm, vec![Made(4)], SIXTH),
            (Add, vec![Made(5), Made(3)], 0.0),
        ];
        shorten(&mut code);
        let wanted: Vec<Drafted> = vec![
            (AddImm, vec![X], 3.0),
            (MaxImm, vec![Made(0)], 0.0),
            (MinImm, vec![Made(1)], 6.0),
            (HardSwish, vec![X], 0.0),
            (Add, vec![Made(3), Made(2)], 0.0),
        ];
        assert_eq!(code, wanted);
    }
}
