//! How much CPU time the control groups allow: the least of our own group and all above it.

use super::Tree;

/// CPUs' worth of time, or `None`: no limit.
pub fn quota(tree: &dyn Tree) -> Option<f64> {
    // cgroups(7): `0::PATH` is version 2, `N:CONTROLLERS:PATH` version 1.
    let groups = tree.read("proc/self/cgroup")?;
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let limits = if controllers.is_empty() {
            v2(tree, path)
        } else if controllers.split(',').any(|c| c == "cpu") {
            v1(tree, controllers, path)
        } else {
            None
        };
        least = [least, limits].into_iter().flatten().reduce(f64::min);
    }
    least
}

/// `cpu.max`: `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn v2(tree: &dyn Tree, path: &str) -> Option<f64> {
    let limit = |dir: String| {
        let text = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
            .iter()
            .find_map(|root| tree.read(&format!("{root}{dir}/cpu.max")))?;
        let mut words = text.split_whitespace();
        let (quota, period) = (words.next()?.parse::<f64>().ok()?, words.next()?.parse::<f64>().ok()?);
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    };
    upwards(path).filter_map(limit).reduce(f64::min)
}

/// `cpu.cfs_quota_us` (-1: no limit) and `cpu.cfs_period_us`.
fn v1(tree: &dyn Tree, controllers: &str, path: &str) -> Option<f64> {
    let number = |dir: &str, file: &str| {
        // The mount is named after all its controllers, and a link leads there from `cpu`.
        let roots = [format!("sys/fs/cgroup/{controllers}"), "sys/fs/cgroup/cpu".to_string()];
        let text = roots.iter().find_map(|root| tree.read(&format!("{root}{dir}/{file}")))?;
        text.trim().parse::<f64>().ok()
    };
    let limit = |dir: String| {
        let (quota, period) = (number(&dir, "cpu.cfs_quota_us")?, number(&dir, "cpu.cfs_period_us")?);
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    };
    upwards(path).filter_map(limit).reduce(f64::min)
}

/// A group's directory and all above it, the root as an empty text.
fn upwards(path: &str) -> impl Iterator<Item = String> {
    let mut next = Some(path.trim_end_matches('/').to_string());
    std::iter::from_fn(move || {
        let this = next.take()?;
        next = this.rfind('/').map(|slash| this[..slash].to_string());
        Some(this)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_up_ends_at_the_root() {
        assert_eq!(upwards("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
        assert_eq!(upwards("/").collect::<Vec<_>>(), [""]);
    }
}
