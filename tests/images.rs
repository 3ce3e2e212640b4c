//! Containers: the image's directory tree as `config/docker/Dockerfile` lays it out, run the way that a container runs (PID 1 of a
//! PID namespace, a numeric user, a root that is read-only), and the manifests for Kubernetes.

mod common;

use common::{BINARY, PATIENCE, logweir, scratch, skipped};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// The shipper, where CI has built it.
fn shipper() -> Option<PathBuf> {
    std::env::var_os("LOGWEIR_SHIPPER").map(PathBuf::from)
}

/// The programs to put into the image: the static one where CI has built it, else that of the tests; the shipper; their libraries.
fn lay_out(root: &Path) {
    let program = std::env::var_os("LOGWEIR_STATIC").map_or(PathBuf::from(BINARY), PathBuf::from);
    for dir in ["usr/bin", "etc/logweir", "data", "proc", "dev"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy(config("docker/logweir.toml"), root.join("etc/logweir/logweir.toml")).unwrap();
    put(&program, root, "usr/bin/logweir");
    if let Some(shipper) = shipper() {
        put(&shipper, root, "usr/bin/logweir-ship");
    }
}

/// A program and the libraries it is linked with.
fn put(program: &Path, root: &Path, at: &str) {
    std::fs::copy(program, root.join(at)).unwrap();
    let needed = Command::new("ldd").arg(program).output().unwrap();
    for library in String::from_utf8_lossy(&needed.stdout).split_whitespace().filter(|w| w.starts_with('/')) {
        let inside = root.join(&library[1..]);
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::copy(library, inside).unwrap();
    }
}

/// What the container's runtime does, in the order it does it: new namespaces, a read-only root with a volume, another root, no
/// privilege (a change of user takes the capabilities), the program as PID 1.
const RUNTIME: &str = r#"
set -eu
mount --bind "$1" "$1"
mount --bind "$2" "$1/data"
mount -t proc proc "$1/proc"
mount -o remount,bind,ro "$1"
root=$1
shift 2
exec chroot --groups= --userspec=65532:65532 "$root" /usr/bin/logweir "$@"
"#;

fn container(root: &Path, volume: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", RUNTIME, "sh"]).args([root, volume]);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// As its CMD says, but for ports that are free.
const SERVE: [&str; 7] =
    ["serve", "--config", "/etc/logweir/logweir.toml", "--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"];
/// The shipper tries everything, with brokers that are not there.
const TRY: [&str; 6] =
    ["ship", "--config", "/etc/logweir/logweir.toml", "--set", "ship.kafka.to=kafka://127.0.0.1:1", "--check"];

#[test]
fn the_image_runs_as_pid_1_without_privileges_and_ends_at_sigterm() {
    let test = "the_image_runs_as_pid_1_without_privileges_and_ends_at_sigterm";
    if !nix::unistd::geteuid().is_root() {
        return skipped(test, "not root");
    }
    let dir = scratch();
    let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
    lay_out(&root);
    std::fs::create_dir(&volume).unwrap();
    std::os::unix::fs::chown(&volume, Some(65532), Some(65532)).unwrap();
    // Reachable for another user.
    for dir in [dir.path(), &root] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let Ok(mut runtime) = container(&root, &volume, &SERVE).spawn() else { return skipped(test, "no unshare") };
    let mut said = BufReader::new(runtime.stdout.take().unwrap()).lines();
    let mut introduction = Vec::new();
    for line in said.by_ref().map_while(Result::ok) {
        let is_last = line.starts_with("Read it back");
        introduction.push(line);
        if is_last {
            break;
        }
    }
    let address =
        introduction.iter().find_map(|l| l.split_once("tcp://").map(|(_, rest)| rest.split_whitespace().next()));
    let Some(Some(address)) = address else {
        let output = runtime.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        // A container that may not make containers.
        assert!(why.contains("Operation not permitted") || why.contains("unshare"), "{introduction:?} {why}");
        return skipped(test, why.trim());
    };
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", runtime.id())).unwrap();
    let server: i32 = child.trim().parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let value = |key: &str| {
        let line = status.lines().find(|l| l.split(':').next() == Some(key)).unwrap();
        line.split_whitespace().skip(1).map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(value("NSpid").last().unwrap(), "1");
    assert!(value("Uid").iter().all(|id| id == "65532"), "{:?}", value("Uid"));
    assert!(value("Gid").iter().all(|id| id == "65532"), "{:?}", value("Gid"));
    assert_eq!(value("CapEff"), ["0000000000000000"]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"into the container\n").unwrap();
    drop(stream);
    let cat = || logweir(&["cat", "--data-dir", volume.to_str().unwrap()]).stdout;
    common::await_that("the line", || cat() == b"into the container\n");
    // A second container on the same volume.
    if shipper().is_some() {
        let tried = container(&root, &volume, &TRY).output().unwrap();
        let said = String::from_utf8_lossy(&[tried.stdout, tried.stderr].concat()).into_owned();
        // Nothing has shipped from here: its directory is made by the first run, not by a check.
        let parts = ["/data can be read", "/data/.logweir can be written to", "no broker of 127.0.0.1:1 answers"];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let signalled = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGTERM).unwrap();
    let exit = runtime.wait().unwrap();
    assert!(exit.success() && signalled.elapsed() < PATIENCE, "{exit}");
    assert_eq!(cat(), b"into the container\n");
}

/// What the image and the package are made of, as far as it can be told without making them: `.ci/deb` and CI make them.
#[test]
fn the_image_and_the_package_have_the_server_and_the_shipper() {
    let text = |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let image = text("config/docker/Dockerfile");
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let packed = |file: &str| assets.iter().any(|asset| asset[0].as_str() == Some(file));
    for program in ["logweir", "logweir-ship"] {
        assert!(image.contains(&format!("/{program} /image/usr/bin/{program} ")), "{program} is not in the image");
        assert!(packed(&format!("target/release/{program}")), "{program} is not in the package");
        assert!(packed(&format!("systemd/{program}.service")), "{program}.service is not in the package");
    }
}

/// Reads the manifests, as JSON: for each, its documents.
fn manifests(test: &str) -> Option<Vec<serde_json::Value>> {
    let program =
        "import json, sys, yaml\nprint(json.dumps([d for f in sys.argv[1:] for d in yaml.safe_load_all(open(f))]))";
    let files = ["kubernetes/sidecar.yaml", "kubernetes/daemonset.yaml", "kubernetes/shipper.yaml"].map(config);
    for python in ["python3", "/usr/bin/python3"] {
        let Ok(output) = Command::new(python).args(["-c", program]).args(&files).output() else { continue };
        if output.status.success() {
            return Some(serde_json::from_slice(&output.stdout).unwrap());
        }
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(why.contains("No module named"), "{why}");
    }
    skipped(test, "Python has no yaml");
    None
}

/// `15s` and the like.
fn seconds(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|l| l.strip_prefix(&format!("{key} = \""))).map(|v| v.trim_end_matches("s\""));
    value.map_or(0, |v| v.parse().unwrap())
}

/// As `kubectl patch` merges it: containers by their names, key by key; lists are replaced.
fn patch(pod: &mut serde_json::Value, with: &serde_json::Value) {
    for container in with["containers"].as_array().unwrap() {
        let there = pod["containers"].as_array_mut().unwrap();
        match there.iter_mut().find(|one| one["name"] == container["name"]) {
            Some(one) => one.as_object_mut().unwrap().extend(container.as_object().unwrap().clone()),
            None => there.push(container.clone()),
        }
    }
}

#[test]
fn the_shipper_is_a_second_container_beside_the_server() {
    let test = "the_shipper_is_a_second_container_beside_the_server";
    let Some(documents) = manifests(test) else { return };
    let map = documents.iter().find(|d| d["kind"] == "ConfigMap" && d["metadata"]["name"] == "logweir").unwrap();
    let mut daemons = documents.iter().find(|d| d["kind"] == "DaemonSet").unwrap().clone();
    let by = documents.iter().find(|d| d["kind"].is_null()).expect("the patch");
    let pod = &mut daemons["spec"]["template"]["spec"];
    let before = pod["containers"][0].clone();
    patch(pod, &by["spec"]["template"]["spec"]);
    let [server, shipper] = &pod["containers"].as_array().unwrap()[..] else { panic!("two containers: {pod}") };
    // The same program on the same files, as little privileged.
    for key in ["image", "volumeMounts", "securityContext"] {
        assert_eq!((&server[key], &shipper[key]), (&before[key], &before[key]), "{key}");
    }
    assert!(shipper["resources"]["limits"]["memory"].is_string());
    let words = |of: &serde_json::Value| {
        let all = of["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_string());
        all.collect::<Vec<_>>()
    };
    let (of_server, of_shipper) = (words(server), words(shipper));
    assert!(of_server.starts_with(&words(&before)), "the server is what it was, and knows the target");
    assert_eq!((of_server[0].as_str(), of_shipper[0].as_str()), ("serve", "ship"));
    assert_eq!(of_server[1..], of_shipper[1..], "both have the same configuration");
    let dir = scratch();
    let file = dir.path().join("logweir.toml");
    std::fs::write(&file, map["data"]["logweir.toml"].as_str().unwrap()).unwrap();
    let mut args = vec!["check", "--config-only", "--config", file.to_str().unwrap()];
    args.extend(of_server[3..].iter().map(String::as_str));
    assert!(args.iter().any(|word| word.starts_with("ship.")), "{args:?}");
    let output = logweir(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn manifests_hold_together() {
    let Some(documents) = manifests("manifests_hold_together") else { return };
    let dir = scratch();
    let mut configurations = std::collections::HashMap::new();
    for map in documents.iter().filter(|d| d["kind"] == "ConfigMap") {
        let text = map["data"]["logweir.toml"].as_str().unwrap();
        let file = dir.path().join("logweir.toml");
        std::fs::write(&file, text).unwrap();
        let output = logweir(&["check", "--config-only", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        configurations.insert(map["metadata"]["name"].as_str().unwrap(), text);
    }
    assert_eq!(configurations.len(), 2);
    let mut found = 0;
    for document in documents.iter().filter(|d| d["kind"].is_string() && d["spec"]["template"].is_object()) {
        let labels = &document["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&document["spec"]["selector"]["matchLabels"], labels);
        let pod = &document["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = |name: &serde_json::Value| volumes.iter().find(|v| &v["name"] == name).expect("a volume");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let all = ["initContainers", "containers"].into_iter().flat_map(|k| pod[k].as_array().unwrap());
        for container in all {
            let mounts = container["volumeMounts"].as_array().unwrap();
            let of_config = mounts.iter().map(|m| volume(&m["name"])).find(|v| v["configMap"].is_object());
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
            assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
            if container["name"] != "logweir" {
                continue;
            }
            found += 1;
            let text = configurations[of_config.unwrap()["configMap"]["name"].as_str().unwrap()];
            assert!(grace > seconds(text, "drain_delay") + seconds(text, "shutdown_timeout"), "{grace}");
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            assert!(container["resources"]["limits"]["memory"].is_string());
            for (probe, path) in
                [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
            {
                assert_eq!(container[probe]["httpGet"]["path"], path);
                assert_eq!(container[probe]["httpGet"]["port"], "admin");
            }
            let ports = container["ports"].as_array().unwrap();
            let admin = ports.iter().find(|p| p["name"] == "admin").unwrap()["containerPort"].as_u64().unwrap();
            assert!(text.contains(&format!("address = \"0.0.0.0:{admin}\"")), "{admin}");
            let annotations = &document["spec"]["template"]["metadata"]["annotations"];
            assert_eq!(annotations["prometheus.io/port"], admin.to_string());
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn the_configuration_of_the_image_passes_check() {
    let output = logweir(&["check", "--config-only", "--config", config("docker/logweir.toml").to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
