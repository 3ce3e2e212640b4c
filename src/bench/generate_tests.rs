use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    send: SendArgs,
}

fn args(line: &str) -> SendArgs {
    Line::try_parse_from(std::iter::once("send").chain(line.split(' '))).unwrap().send
}

#[test]
fn all_lines_are_somebodys_and_all_of_the_rate_is() {
    for line in
        ["-n 2 -c 5 -t 2 --rate 90", "-n 1000 -c 1 -t 4 --rate 1000", "-n 7 -c 3 -t 2 --rate 70", "-n 1 --rate 5"]
    {
        let args = args(line);
        let threads = split(&args);
        assert_eq!(threads.len(), args.threads as usize, "{line}");
        assert_eq!(threads.iter().map(Vec::len).sum::<usize>(), args.connections as usize, "{line}");
        let lines: Vec<u64> = threads.iter().map(|parts| parts.iter().map(|part| part.lines).sum()).collect();
        assert_eq!(lines.iter().sum::<u64>(), args.lines, "{line}");
        let paces = lines.iter().filter(|lines| **lines > 0).map(|lines| Pace::new(&args, *lines).lines_per_second);
        assert!((paces.sum::<f64>() - args.rate as f64).abs() < 1e-6, "{line}");
    }
}

#[test]
fn nothing_to_send_is_no_error() {
    assert_eq!(Pace::new(&args("-n 0 --rate 5"), 0).allowed(0), usize::MAX);
}
