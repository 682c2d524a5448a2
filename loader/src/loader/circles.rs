//! Images that need each other in circles, each circle (mostly a single image) after those that it needs: Tarjan's
//! strongly connected components.

/// The circles of what needs each other, given what each needs.
pub(super) fn circles(needs: &[&[usize]]) -> Vec<Vec<usize>> {
    struct Walk<'a> {
        needs: &'a [&'a [usize]],
        number: Vec<usize>,
        low: Vec<usize>,
        open: Vec<usize>,
        is_open: Vec<bool>,
        next: usize,
        circles: Vec<Vec<usize>>,
    }
    let count = needs.len();
    let mut walk = Walk {
        needs,
        number: vec![usize::MAX; count],
        low: vec![0; count],
        open: Vec::new(),
        is_open: vec![false; count],
        next: 0,
        circles: Vec::new(),
    };
    for start in 0..count {
        if walk.number[start] != usize::MAX {
            continue;
        }
        // With a stack of its own: a chain may be longer than the thread's.
        let mut stack = vec![(start, 0)];
        while let Some((at, edge)) = stack.pop() {
            if edge == 0 {
                walk.number[at] = walk.next;
                walk.low[at] = walk.next;
                walk.next += 1;
                walk.open.push(at);
                walk.is_open[at] = true;
            }
            match walk.needs[at].get(edge).copied() {
                Some(other) => {
                    stack.push((at, edge + 1));
                    if walk.number[other] == usize::MAX {
                        stack.push((other, 0));
                    } else if walk.is_open[other] {
                        walk.low[at] = walk.low[at].min(walk.number[other]);
                    }
                }
                None => {
                    if walk.low[at] == walk.number[at] {
                        let start = walk.open.iter().rposition(|open| *open == at).unwrap_or(0);
                        let mut circle = walk.open.split_off(start);
                        circle.iter().for_each(|member| walk.is_open[*member] = false);
                        circle.sort_unstable();
                        walk.circles.push(circle);
                    }
                    if let Some((parent, _)) = stack.last() {
                        walk.low[*parent] = walk.low[*parent].min(walk.low[at]);
                    }
                }
            }
        }
    }
    walk.circles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_come_after_what_they_need() {
        let needs: [&[usize]; 6] = [&[1], &[2, 3], &[1], &[], &[0, 4], &[]];
        assert_eq!(circles(&needs), [vec![3], vec![1, 2], vec![0], vec![4], vec![5]]);
        let each: Vec<usize> = (1..=100_000).collect();
        let long: Vec<&[usize]> = each.chunks(1).chain([&[][..]]).collect();
        let order: Vec<usize> = circles(&long).into_iter().flatten().collect();
        assert!(order.iter().rev().copied().eq(0..=100_000));
    }
}
