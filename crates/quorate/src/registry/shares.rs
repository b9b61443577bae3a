//! Shares of a whole, in a row: found by a point of the whole, changed and summed in logarithmic time.

/// A row of numbers with the sums of its beginnings (a Fenwick tree).
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// At `i`, the sum of the shares from `i + 1 - lowbit(i + 1)` up to and with `i`.
    sums: Vec<u64>,
    each: Vec<u32>,
    total: u64,
}

impl Shares {
    /// The sum of all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Adds a share of zero at the end.
    pub(super) fn push(&mut self) {
        let next = self.each.len() + 1;
        let first = next - lowbit(next);
        let sum = self.before(next - 1) - self.before(first);
        self.each.push(0);
        self.sums.push(sum);
    }

    /// Drops the last share.
    pub(super) fn pop(&mut self) {
        self.sums.pop();
        self.total -= u64::from(self.each.pop().unwrap_or(0));
    }

    pub(super) fn set(&mut self, at: usize, share: u32) {
        let before = std::mem::replace(&mut self.each[at], share);
        if before == share {
            return;
        }
        let change = |sum: u64| sum - u64::from(before) + u64::from(share);
        self.total = change(self.total);
        let mut next = at + 1;
        while next <= self.sums.len() {
            self.sums[next - 1] = change(self.sums[next - 1]);
            next += lowbit(next);
        }
    }

    /// The sum of those before this place.
    pub(super) fn before(&self, at: usize) -> u64 {
        let mut rest = at.min(self.sums.len());
        let mut sum = 0;
        while rest > 0 {
            sum += self.sums[rest - 1];
            rest -= lowbit(rest);
        }
        sum
    }

    /// The place whose share a point of the whole falls into.
    pub(super) fn find(&self, mut point: u64) -> Option<usize> {
        if point >= self.total {
            return None;
        }
        let mut at = 0;
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            if let Some(sum) = self.sums.get(at + step - 1)
                && *sum <= point
            {
                point -= sum;
                at += step;
            }
            step /= 2;
        }
        Some(at)
    }
}

const fn lowbit(n: usize) -> usize {
    n & n.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_plain_list() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut shares = Shares::default();
        let mut list: Vec<u32> = Vec::new();
        for _ in 0..3000 {
            match random.u8(..4) {
                0 if !list.is_empty() => {
                    shares.pop();
                    list.pop();
                }
                1 => {
                    shares.push();
                    list.push(0);
                }
                _ if !list.is_empty() => {
                    let at = random.usize(..list.len());
                    let share = random.u32(..3);
                    shares.set(at, share);
                    list[at] = share;
                }
                _ => {}
            }
            let sum = |part: &[u32]| part.iter().map(|&share| u64::from(share)).sum::<u64>();
            assert_eq!(shares.total(), sum(&list));
            let at = random.usize(..list.len() + 2);
            assert_eq!(shares.before(at), sum(&list[..at.min(list.len())]));
            let point = random.u64(..shares.total() + 2);
            let found = (0..list.len()).find(|&at| sum(&list[..=at]) > point);
            assert_eq!(shares.find(point), found);
        }
    }
}
