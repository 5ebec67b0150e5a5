//! The network between nodes: what is lost, late, repeated or cut, and who is connected to whom.

use crate::rng::Rng;
use crate::time::Time;
use core::time::Duration;

/// How messages travel while nothing is cut.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Least time under way.
    pub fastest: Duration,
    /// Most time under way, for a message that is not a straggler.
    pub slowest: Duration,
    /// Messages lost, per million.
    pub lost: u32,
    /// Messages that arrive twice, per million.
    pub doubled: u32,
    /// Messages that take much longer, per million.
    pub straggling: u32,
    /// How long a straggler takes at the most.
    pub straggler: Duration,
}

impl Weather {
    /// A local network on a good day.
    pub const FAIR: Weather = Weather {
        fastest: Duration::from_micros(50),
        slowest: Duration::from_micros(500),
        lost: 0,
        doubled: 0,
        straggling: 0,
        straggler: Duration::ZERO,
    };
}

/// The links among a fixed number of nodes, numbered from 0.
#[derive(Clone, Debug)]
pub struct Network {
    nodes: usize,
    weather: Weather,
    /// `cut[from][to]`: nothing passes in this direction.
    cut: Vec<bool>,
    /// `told[at][of]`: what engine `at` was last told of its connection to `of`.
    told: Vec<bool>,
}

impl Network {
    /// A whole network; nobody is connected yet.
    #[must_use]
    pub fn new(nodes: usize) -> Network {
        let links = nodes * nodes;
        Network { nodes, weather: Weather::FAIR, cut: vec![false; links], told: vec![false; links] }
    }

    /// Changes how messages travel from now on.
    pub const fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Whether every message arrives, and soon.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        self.weather.lost == 0
            && self.weather.straggling == 0
            && self.weather.slowest <= Weather::FAIR.slowest
    }

    /// Cuts or mends one direction. `true` if that changed it.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) -> bool {
        assert_ne!(from, to, "a node talks to itself without a network");
        std::mem::replace(&mut self.cut[from * self.nodes + to], cut) != cut
    }

    /// Whether nothing passes in this direction.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    /// Whether a connection, which needs both directions, can stand.
    #[must_use]
    pub fn can_connect(&self, a: usize, b: usize) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    /// Whether `at` believes that it is connected to `of`.
    #[must_use]
    pub fn believes(&self, at: usize, of: usize) -> bool {
        self.told[at * self.nodes + of]
    }

    /// Notes what `at` is told of its connection to `of`. `true` if it is news.
    pub fn tell(&mut self, at: usize, of: usize, connected: bool) -> bool {
        std::mem::replace(&mut self.told[at * self.nodes + of], connected) != connected
    }

    /// When a message sent now arrives: not at all, once or twice. What is cut when it arrives is lost too, which the
    /// caller asks about then.
    pub fn send(&self, now: Time, from: usize, to: usize, rng: &mut Rng) -> [Option<Time>; 2] {
        if !self.believes(from, to) || self.is_cut(from, to) || rng.chance(self.weather.lost) {
            return [None, None];
        }
        let first = Some(now + self.delay(rng));
        let second = rng.chance(self.weather.doubled).then(|| now + self.delay(rng));
        [first, second]
    }

    fn delay(&self, rng: &mut Rng) -> Duration {
        let weather = &self.weather;
        if rng.chance(weather.straggling) {
            rng.between(weather.slowest, weather.straggler)
        } else {
            rng.between(weather.fastest, weather.slowest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(nodes: usize) -> Network {
        let mut network = Network::new(nodes);
        for a in 0..nodes {
            for b in 0..nodes {
                network.tell(a, b, true);
            }
        }
        network
    }

    #[test]
    fn a_one_way_cut_stops_one_way_and_the_connection() {
        let mut network = connected(2);
        let mut rng = Rng::new(1);
        assert!(network.set_cut(0, 1, true));
        assert_eq!(network.send(Time(0), 0, 1, &mut rng), [None, None]);
        assert!(network.send(Time(0), 1, 0, &mut rng)[0].is_some());
        assert!(!network.can_connect(0, 1) && !network.can_connect(1, 0));
    }

    #[test]
    fn without_a_connection_nothing_is_sent() {
        let network = Network::new(2);
        assert_eq!(network.send(Time(0), 0, 1, &mut Rng::new(1)), [None, None]);
    }

    #[test]
    fn weather_loses_doubles_and_delays_at_its_rates() {
        let mut network = connected(2);
        let second = Duration::from_secs(1);
        network.set_weather(Weather {
            lost: 100_000,
            doubled: 200_000,
            straggling: 300_000,
            straggler: second,
            ..Weather::FAIR
        });
        let mut rng = Rng::new(3);
        let (mut lost, mut doubled, mut late) = (0u32, 0u32, 0u32);
        for _ in 0..100_000 {
            let arrivals = network.send(Time(0), 0, 1, &mut rng);
            lost += u32::from(arrivals[0].is_none());
            doubled += u32::from(arrivals[1].is_some());
            late += u32::from(arrivals[0].is_some_and(|at| at.since(Time(0)) > Weather::FAIR.slowest));
            assert!(arrivals.iter().flatten().all(|at| at.since(Time(0)) <= second));
        }
        assert!(lost.abs_diff(10_000) < 500 && doubled.abs_diff(18_000) < 700 && late.abs_diff(27_000) < 900);
    }
}
