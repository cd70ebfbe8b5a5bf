//! What an action in a sandbox sees, and what it does not.

use super::*;
use motefarm_proto::reapi::platform;

#[tokio::test]
async fn its_root_is_the_input_and_the_system_read_only() {
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    let job = Job::sh("pwd; ls -d /in /in/f; cat /in/f; ls / | tr '\\n' ' '").file("in/f", "content\n");
    let came = run_job(&mut client, &job).await;
    let seen = came.stdout();
    assert!(seen.starts_with("/\n/in\n/in/f\ncontent\n"), "{seen}{}", came.stderr());
    for name in ["bin", "usr", "dev", "proc", "tmp", "etc"] {
        assert!(seen.split_ascii_whitespace().any(|seen| seen == name), "{name}: {seen}");
    }
    for name in ["home", "root", "var", "work", "sys", "run", "opt"] {
        assert!(!seen.split_ascii_whitespace().skip(4).any(|seen| seen == name), "{name}: {seen}");
    }
    let refused = [
        "echo x > /usr/x",
        "echo x > /etc/x",
        "echo x > /dev/x",
        "mknod /n b 8 0",
        "mount -t tmpfs x /tmp",
        "umount /usr",
        "chroot / true",
        "cat /etc/shadow",
        "cd /proc/1 && ls root/.",
        "kill -9 1 && sleep 1 && test ! -d /proc/1",
        "hostname other",
        // Harmless if it succeeded; other files there are not.
        "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness",
        "test -w /proc/sysrq-trigger",
        "unshare -Urmpf sh -c 'mount -o remount,rw /usr && echo > /usr/x'",
        "ls /actions",
        "ls /host",
    ];
    for script in refused {
        let came = run_job(&mut client, &Job::sh(script)).await;
        assert_ne!(came.result().exit_code, 0, "{script}: {}", came.stdout());
    }
    let fine = "test $(id -u) = 1000 && test $(hostname) = mote && echo x > /dev/null && : > /tmp/x && : > /dev/shm/x \
                && test $(ls /proc | grep -c '^[0-9]') -lt 8 && grep -q 'CapEff:.0000000000000000' /proc/self/status \
                && grep -q 'NoNewPrivs:.1' /proc/self/status && head -c 1 /dev/urandom > /dev/full; test $? = 1";
    let came = run_job(&mut client, &Job::sh(fine)).await;
    assert_eq!(came.result().exit_code, 0, "{}{}", came.stdout(), came.stderr());
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn nothing_of_one_action_is_there_for_the_next() {
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    let leave = "echo x > /tmp/left; echo x > /dev/shm/left; echo x > /left; ipcmk -M 100 || true";
    assert_eq!(run_job(&mut client, &Job::sh(leave)).await.result().exit_code, 0);
    for _ in 0..4 {
        let look = "ls -A /tmp; ls -A /dev/shm; ls /left 2>/dev/null; (ipcs -m || true) | grep -c 0x";
        assert_eq!(run_job(&mut client, &Job::sh(look)).await.stdout(), "0\n");
    }
    buildlet.finish().await;
}

#[tokio::test]
async fn there_is_no_network_but_a_loopback_of_its_own() {
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = run_job(&mut client, &Job::sh("cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '")).await;
    assert_eq!(came.stdout(), "lo\n");
    let script = format!("exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'");
    assert_ne!(run_job(&mut client, &Job::sh(&script)).await.result().exit_code, 0);
    let server = "exec python3 -c 'import socket as s; a=s.create_server((\"127.0.0.1\",0)); s.create_connection(a.getsockname())'";
    if std::path::Path::new("/usr/bin/python3").exists() {
        let came = run_job(&mut client, &Job::sh(server)).await;
        assert_eq!(came.result().exit_code, 0, "{}", came.stderr());
    } else {
        eprintln!("SKIPPED: python3 is not installed, so nothing listened");
    }
    buildlet.finish().await;
}

#[tokio::test]
async fn what_the_input_has_the_system_has_not() {
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    // /usr is the input's; the linker and the shell are then, too.
    let job = Job::sh("true").file("usr/share/only", "");
    assert_eq!(run_job(&mut client, &job).await.result().exit_code, 127);
    let job = Job::sh("ls /etc /tmp; ls -d /dev/null /proc/self")
        .file("etc/own", "")
        .file("tmp/own", "")
        .dir("dev")
        .dir("proc");
    assert_eq!(run_job(&mut client, &job).await.stdout(), "/etc:\nown\n\n/tmp:\nown\n/dev/null\n/proc/self\n");
    // A link of that name leads nothing astray.
    let job = Job::sh("ls /dev/null; readlink /dev").link("dev", "/usr");
    assert_eq!(run_job(&mut client, &job).await.stdout(), "/usr\n");
    let came = run_job(&mut client, &Job::sh("true").outputs(&["usr/lib/x"])).await;
    assert_ne!(came.result().exit_code, 0, "an output's directory is the action's own");
    let came = run_job(&mut client, &Job::sh("true").outputs(&["usr"])).await;
    assert!(came.status().message().contains("/usr"), "{}", came.status());
    let came = run_job(&mut client, &Job::sh("echo 1 > /tmp/x; echo 2 > /tmp/y").outputs(&["tmp/x"])).await;
    assert_eq!(came.file("tmp/x").0, "1\n");
    buildlet.finish().await;
}

/// What a compiler's client ships of its own `/usr` goes before the machine's, which has the rest.
#[tokio::test]
async fn an_input_is_laid_over_the_system_where_that_is_asked_for() {
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    if !described.merges_system_files {
        eprintln!("SKIPPED: this kernel lays no directory over another for a user like this");
        return buildlet.finish().await;
    }
    let merged = |job: Job| {
        let mut job = job.file("usr/share/only", "the input's\n").file("bin/own", "#!/bin/sh\necho own\n");
        let property = platform::Property { name: "system-files".into(), value: "merged".into() };
        #[expect(deprecated, reason = "of the two places the one that is there whatever the test")]
        job.command.platform.get_or_insert_default().properties.push(property);
        job
    };
    // /bin is a link to usr/bin on merged systems; the input has a directory of that name.
    let look = "cat /usr/share/only; ls /usr/bin/env /bin/env /bin/sh; . /bin/own; : > /usr/x";
    let came = run_job(&mut client, &merged(Job::sh(look))).await;
    assert_eq!(came.stdout(), "the input's\n/bin/env\n/bin/sh\n/usr/bin/env\nown\n", "{}", came.stderr());
    assert_ne!(came.result().exit_code, 0, "nobody changes it");
    let came = run_job(&mut client, &merged(Job::sh("true")).outputs(&["usr/lib/x"])).await;
    assert!(came.status().message().contains("/usr is laid over the system's"), "{}", came.status());
    // The next one has nothing of it.
    let came = run_job(&mut client, &Job::sh("ls /usr/share/only /bin/own")).await;
    assert_eq!((came.stdout(), came.result().exit_code), (String::new(), 2));
    nothing_is_left(&buildlet).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn the_operator_shows_more_and_the_farms_own_data_stays_hidden() {
    // Not below /tmp, which is an action's own.
    let shown = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(shown.path().join("tool"), "shown").unwrap();
    let path = shown.path().to_str().unwrap().to_owned();
    let place = tempfile::tempdir_in(shown.path()).unwrap();
    let buildlet = Buildlet::start_in(place, &["--show", &path]).await;
    let mut client = buildlet.client().await;
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    if described.action_sandbox == "none" {
        eprintln!("SKIPPED: {}", described.action_sandbox_reason);
    } else {
        let data = buildlet.data();
        let script = format!("cat {path}/tool; echo x > {path}/x; ls -A {}", data.display());
        let came = run_job(&mut client, &Job::sh(&script)).await;
        assert_eq!(came.stdout(), "shown", "{}", came.stderr());
    }
    buildlet.finish().await;
}

#[tokio::test]
async fn compilers_of_the_machine_work() {
    let Some((mut client, buildlet)) = sandboxed().await else { return };
    if !std::path::Path::new("/usr/bin/cc").exists() {
        eprintln!("SKIPPED: cc is not installed");
        return buildlet.finish().await;
    }
    let job = Job::sh("cc -Iinc -O1 -o out/prog src/main.c && ./out/prog")
        .file("src/main.c", "#include <stdio.h>\n#include \"n.h\"\nint main(void){printf(\"%d\\n\", N);return 0;}\n")
        .file("inc/n.h", "#define N 42\n")
        .outputs(&["out/prog"]);
    let came = run_job(&mut client, &job).await;
    assert_eq!(came.stdout(), "42\n", "{}", came.stderr());
    assert!(came.file("out/prog").1);
    buildlet.finish().await;
}
