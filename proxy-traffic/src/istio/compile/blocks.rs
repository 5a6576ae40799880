//! Which blocks of DestinationRules count for a cluster, and where they stand.

use crate::istio::resource::{
    ConnectionPool, DestinationRule, Item, LoadBalancer, OutlierDetection, TrafficPolicy,
};

/// What is said about one cluster; `None`: nothing, so the defaults hold.
#[derive(Clone, Copy, Default)]
pub(super) struct Blocks<'a> {
    pub(super) balancer: Option<Block<'a, LoadBalancer>>,
    pub(super) pool: Option<Block<'a, ConnectionPool>>,
    pub(super) outlier: Option<Block<'a, OutlierDetection>>,
}

/// A block with where it stands.
pub(super) struct Block<'a, T> {
    pub(super) value: &'a T,
    pub(super) place: Place<'a>,
}

/// A level of a DestinationRule.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) rule: &'a Item<DestinationRule>,
    /// Which of its subsets; `None`: the rule itself.
    subset: Option<usize>,
    /// Which of its `portLevelSettings`; `None`: all ports.
    port: Option<usize>,
}

impl<'a, T> Clone for Block<'a, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, T> Copy for Block<'a, T> {}

impl<'a> Place<'a> {
    /// The rule itself, or one of its subsets.
    pub(super) fn new(rule: &'a Item<DestinationRule>, subset: Option<usize>) -> Self {
        Self { rule, subset, port: None }
    }

    /// The path of `field` of this level.
    pub(super) fn field(&self, field: &str) -> String {
        let subset = self.subset.map(|index| format!("subsets[{index}].")).unwrap_or_default();
        let port = self.port.map(|index| format!("portLevelSettings[{index}].")).unwrap_or_default();
        format!("{subset}trafficPolicy.{port}{field}")
    }
}

impl<'a> Blocks<'a> {
    /// What this level says of `port`, and block by block what `wider` says of the rest. Settings for the port take
    /// the place of everything, at this level and at wider ones.
    pub(super) fn narrowed(self, policy: Option<&'a TrafficPolicy>, place: Place<'a>, port: u16) -> Self {
        let Some(policy) = policy else { return self };
        let mut ports = policy.port_level_settings.iter().enumerate();
        if let Some((index, one)) = ports.find(|(_, settings)| settings.number() == Some(port)) {
            let place = Place { port: Some(index), ..place };
            return Self {
                balancer: block(one.load_balancer.as_ref(), place),
                pool: block(one.connection_pool.as_ref(), place),
                outlier: block(one.outlier_detection.as_ref(), place),
            };
        }
        Self {
            balancer: block(policy.load_balancer.as_ref(), place).or(self.balancer),
            pool: block(policy.connection_pool.as_ref(), place).or(self.pool),
            outlier: block(policy.outlier_detection.as_ref(), place).or(self.outlier),
        }
    }
}

/// Every port that a policy has settings for, with where they stand.
pub(super) fn ports<'a>(
    policy: Option<&'a TrafficPolicy>,
    place: Place<'a>,
) -> impl Iterator<Item = (Place<'a>, u16)> {
    let settings = policy.into_iter().flat_map(|policy| policy.port_level_settings.iter().enumerate());
    settings.filter_map(move |(index, one)| Some((Place { port: Some(index), ..place }, one.number()?)))
}

fn block<'a, T>(value: Option<&'a T>, place: Place<'a>) -> Option<Block<'a, T>> {
    value.map(|value| Block { value, place })
}
