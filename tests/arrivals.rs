//! `trainyard bench --trace` from the outside: what it prints in each form, what it writes, and what it refuses.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

type Tested = Result<(), Box<dyn Error>>;

const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\na,16000,1000,2,T4\nb,4000,1000,1,A100\n";

/// Half a GPU twice, a whole one that only an A100 will do for, and one that no node has the CPUs for.
const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n\
                    half,1000,10,1,500,,LS\n\
                    whole,4000,10,1,1000,A100|H100,BE\n\
                    greedy,99000,10,1,1000,,LS\n\
                    host,8000,10,0,0,,LS\n";

const ORDER: &str = r#"{"trace": "tiny", "order": [0, 0, 1, 2, 3, 1]}"#;

fn folder() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("nodes.csv"), NODES)?;
    fs::write(folder.path().join("pods.csv"), PODS)?;
    fs::write(folder.path().join("order.json"), ORDER)?;
    Ok(folder)
}

fn bench(folder: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    Ok(command.args([&["bench"], args].concat()).current_dir(folder).env("NO_COLOR", "1").output()?)
}

fn rows(output: &Output) -> Result<Vec<Value>, Box<dyn Error>> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn refused(folder: &Path, args: &[&str], code: i32) -> Result<String, Box<dyn Error>> {
    let output = bench(folder, args)?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words}");
    // Where lines wrap depends on the terminal.
    Ok(words.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" "))
}

#[test]
fn a_replay_counts_what_is_placed_and_what_is_turned_away() -> Tested {
    let folder = folder()?;
    let args = ["--trace", ".", "--arrivals", "order.json", "--fits", "first-fit,fragmentation", "--json"];
    let rows = rows(&bench(folder.path(), &args)?)?;
    assert_eq!(rows.len(), 2);
    for row in &rows {
        // Both halves lie on one GPU of the first node, so that it has 14 CPUs for the host's 8; of the two that want
        // an A100 one can be had.
        assert_eq!((&row["arrivals"], &row["rejected"], &row["orders"]), (&6.into(), &2.into(), &1.into()), "{row}");
        assert_eq!((&row["gpus"], &row["unallocated_gpus"]), (&3.0.into(), &1.0.into()), "{row}");
        assert_eq!(row["demand_allocated"], 0.5, "{row}");
    }
    assert_eq!((&rows[0]["fit"], &rows[1]["fit"]), (&"first-fit".into(), &"fragmentation".into()));
    Ok(())
}

#[test]
fn where_everything_went_is_written() -> Tested {
    let folder = folder()?;
    let args = ["--trace", ".", "--arrivals", "order.json", "--fits", "first-fit", "--placements", "out"];
    assert!(bench(folder.path(), &args)?.status.success());
    let written = fs::read_to_string(folder.path().join("out/first-fit-order.csv"))?;
    let lines: Vec<_> = written.split_terminator("\r\n").collect();
    assert_eq!((lines.len(), lines[0]), (7, "k,pod,node,gpus"));
    assert_eq!((lines[3], lines[4], lines[5], lines[6]), ("2,whole,b,0", "3,greedy,,", "4,host,a,", "5,whole,,"));
    Ok(())
}

#[test]
fn without_an_order_pods_are_drawn_until_they_ask_for_more_than_there_is() -> Tested {
    let folder = folder()?;
    let args = ["--trace", "pods.csv", "--seeds", "2", "--seed", "9", "--csv"];
    let output = bench(folder.path(), &args)?;
    let text = String::from_utf8(output.stdout.clone())?;
    let lines: Vec<Vec<&str>> = text.split_terminator("\r\n").map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0][..5], ["trace", "nodes", "gpus", "fit", "knows"]);
    assert_eq!(lines.len(), 8, "every fit has a line");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
    let column = |name: &str| lines[0].iter().position(|column| *column == name);
    let orders = column("orders").ok_or("there is such a column")?;
    assert!(lines[1..].iter().all(|line| line[0] == "pods" && line[orders] == "2"), "{text}");
    let again = bench(folder.path(), &args)?;
    let timeless = |output: &Output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.rsplit_once(',').map_or(String::new(), |(rest, _)| rest.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(timeless(&output), timeless(&again), "equal seeds give equal results");
    Ok(())
}

#[test]
fn the_table_says_what_was_replayed() -> Tested {
    let folder = folder()?;
    let output = bench(folder.path(), &["--trace", ".", "--arrivals", "order.json", "--fits", "first-fit"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("6 arrivals ask for 4.0 GPUs of 3, on 2 nodes, 1 order\n"), "{text}");
    assert!(text.contains("\nfirst-fit  "), "{text}");
    Ok(())
}

#[test]
fn the_page_has_the_table_and_a_bar_for_each_fit() -> Tested {
    let folder = folder()?;
    fs::rename(folder.path().join("pods.csv"), folder.path().join("a&b.csv"))?;
    let args = ["--trace", "a&b.csv", "--arrivals", "order.json", "--fits", "first-fit,fill", "--html", "page.html"];
    let shown = String::from_utf8(bench(folder.path(), &args)?.stdout)?;
    assert!(shown.contains("\nfirst-fit  "), "the table is printed all the same: {shown}");
    let page = fs::read_to_string(folder.path().join("page.html"))?;
    assert!(page.contains("<h2>a&amp;b: 6 arrivals ask for 4.0 GPUs of 3, on 2 nodes, 1 order</h2>"), "{page}");
    assert_eq!(page.matches("<rect class=\"gap\"").count(), 2, "{page}");
    assert!(page.contains("<td>first-fit</td><td>1.0</td>") && page.ends_with("</body></html>\n"), "{page}");
    Ok(())
}

#[test]
fn gzipped_files_are_read_like_plain_ones() -> Tested {
    let folder = folder()?;
    for name in ["nodes.csv", "pods.csv"] {
        let plain = folder.path().join(name);
        let packed = fs::File::create(folder.path().join(format!("{name}.gz")))?;
        let mut packer = flate2::write::GzEncoder::new(packed, flate2::Compression::default());
        packer.write_all(&fs::read(&plain)?)?;
        packer.finish()?;
        fs::remove_file(plain)?;
    }
    let args = ["--trace", ".", "--arrivals", "order.json", "--fits", "first-fit", "--json"];
    assert_eq!(rows(&bench(folder.path(), &args)?)?[0]["rejected"], 2);
    Ok(())
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_line_all_at_once() -> Tested {
    let folder = folder()?;
    let pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,many,10,1,500\nb,1000,10,1,0\nc,1,1,1,1500\nd,1,1,2,500\ne,1,,0,0\nf,1,1,1\ng,1,1,0,500\n";
    fs::write(folder.path().join("pods.csv"), pods)?;
    let words = refused(folder.path(), &["--trace", "."], 3)?;
    for part in [
        "pods.csv:2: `cpu_milli` is `many`: write a whole number",
        "pods.csv:3: `gpu_milli` is 0",
        "pods.csv:4: `gpu_milli` is 1500: at most 1000",
        "pods.csv:5: `gpu_milli` is 500 of 2 GPUs",
        "pods.csv:7: 4 fields under 5 columns",
        "pods.csv:8: `gpu_milli` is 500 and `num_gpu` 0",
        "pods.csv:6: `memory_mib` is empty",
        "mend these lines",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    Ok(())
}

#[test]
fn a_trace_that_is_no_trace_is_refused_with_what_is_missing() -> Tested {
    let folder = folder()?;
    let path = folder.path();
    assert!(refused(path, &["--trace", "nowhere"], 3)?.contains("cannot read nowhere"));
    fs::write(path.join("few.csv"), "name,num_gpu\na,1\n")?;
    let words = refused(path, &["--trace", "few.csv"], 3)?;
    assert!(words.contains("few.csv:1: no column `cpu_milli`, `memory_mib`, `gpu_milli`"), "{words}");
    fs::write(path.join("none.csv"), "sn,cpu_milli,memory_mib,gpu,model\na,1,1,0,\n")?;
    assert!(refused(path, &["--trace", ".", "--nodes", "none.csv"], 3)?.contains("no node has a GPU"));
    fs::write(path.join("twice.csv"), "sn,cpu_milli,memory_mib,gpu,model\na,1,1,1,T4\na,1,1,1,T4\n")?;
    assert!(refused(path, &["--trace", ".", "--nodes", "twice.csv"], 3)?.contains("two nodes are named `a`"));
    fs::write(path.join("host.csv"), "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,0,0\n")?;
    assert!(refused(path, &["--trace", "host.csv"], 3)?.contains("nothing that arrives asks for a GPU"));
    Ok(())
}

#[test]
fn an_order_of_other_pods_is_refused() -> Tested {
    let folder = folder()?;
    let path = folder.path();
    let order = |text: &str| -> Result<String, Box<dyn Error>> {
        fs::write(path.join("bad.json"), text)?;
        refused(path, &["--trace", ".", "--arrivals", "bad.json"], 3)
    };
    assert!(order(r#"{"order": [0, 4]}"#)?.contains("arrival 2 is pod 4, and there are 4"));
    assert!(order(r#"{"order": []}"#)?.contains("nothing arrives"));
    assert!(order(r#"{"order": [0], "node_rank": [1]}"#)?.contains("`node_rank` has 1 entries, and there are 2 nodes"));
    assert!(order(r#"{"order": [-1]}"#)?.contains("bad.json: invalid value"));
    Ok(())
}

#[test]
fn an_unknown_fit_ends_with_2_and_a_suggestion() -> Tested {
    let folder = folder()?;
    let words = refused(folder.path(), &["--trace", ".", "--fits", "fragmentatoin"], 2)?;
    assert!(words.contains("did you mean `fragmentation`?"), "{words}");
    assert!(refused(folder.path(), &["--fits", "best-fit"], 2)?.contains("--trace"));
    refused(folder.path(), &["--trace", ".", "--policies", "auto"], 2)?;
    Ok(())
}
