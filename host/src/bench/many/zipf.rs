//! Popularity by Zipf's law.

/// Draws from `0..n`: `k` comes up in proportion to `(k + 1)^-exponent`.
pub(super) struct Zipf {
    /// `[n]` probability of each and all before it, ascending to 1.
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=n)
            .map(|k| {
                sum += (k as f64).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|weight| *weight /= sum);
        Self { cumulative }
    }

    /// The choice that a number in 0..1 stands for.
    pub(super) fn draw(&self, uniform: f64) -> usize {
        let at = self.cumulative.partition_point(|&cumulative| cumulative <= uniform);
        at.min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_up_in_proportion() {
        let zipf = Zipf::new(3, 1.0);
        // 1, 1/2 and 1/3 of 11/6.
        let borders = [(0.0, 0), (6.0 / 11.0 - 1e-9, 0), (6.0 / 11.0 + 1e-9, 1)];
        for (uniform, choice) in borders.into_iter().chain([(9.0 / 11.0 + 1e-9, 2), (1.0, 2)]) {
            assert_eq!(zipf.draw(uniform), choice, "{uniform}");
        }
    }

    #[test]
    fn an_exponent_of_zero_knows_no_favourites() {
        let zipf = Zipf::new(4, 0.0);
        let drawn: Vec<_> = (0..8).map(|i| zipf.draw(f64::from(i) / 8.0)).collect();
        assert_eq!(drawn, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn popular_adapters_are_asked_for_most() {
        let zipf = Zipf::new(1000, 1.0);
        let mut rng = fastrand::Rng::with_seed(1);
        let drawn: Vec<_> = (0..10_000).map(|_| zipf.draw(rng.f64())).collect();
        let share = |below| drawn.iter().filter(|&&k| k < below).count() as f64 / 10_000.0;
        // The harmonic numbers H(10) / H(1000) and 1 / H(1000).
        assert!((share(10) - 0.3913).abs() < 0.02, "{}", share(10));
        assert!((share(1) - 0.1336).abs() < 0.02, "{}", share(1));
    }
}
