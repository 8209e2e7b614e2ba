//! The emulated memory itself: what the end-to-end tests of packing rest on.

#![expect(clippy::disallowed_methods, reason = "starts stand-ins for trainings")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use mock_nvml::{Card, Scene};

/// Starts `hold.sh` on a card with these arguments.
fn training(scene: &Scene, card: &str, args: &[&str]) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new(Scene::trainer());
    command.args(args).envs(scene.environment()).env("CUDA_VISIBLE_DEVICES", card);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?)
}

/// Kills a training with all that it started.
fn kill(training: &mut Child) -> Result<(), Box<dyn Error>> {
    let group = rustix::process::Pid::from_child(training);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
    training.wait()?;
    Ok(())
}

/// Waits for the first line of a program: what it says once it holds its memory, or why it does not.
fn first_line(training: &mut Child) -> Result<String, Box<dyn Error>> {
    let mut line = String::new();
    BufReader::new(training.stdout.as_mut().ok_or("piped")?).read_line(&mut line)?;
    if line.is_empty() {
        BufReader::new(training.stderr.as_mut().ok_or("piped")?).read_line(&mut line)?;
    }
    Ok(line)
}

#[test]
fn a_card_is_never_given_out_twice() -> Result<(), Box<dyn Error>> {
    let scene = Scene::new(vec![Card::default(), Card { mib: 143_771, ..Card::default() }])?;
    let mut trainings = Vec::new();
    for _ in 0..5 {
        trainings.push(training(&scene, "1", &["40960", "60"])?);
    }
    let mut said = Vec::new();
    for training in &mut trainings {
        said.push(first_line(training)?);
    }
    assert_eq!(said.iter().filter(|line| line.starts_with("holding 40960 MiB")).count(), 3, "{said:?}");
    let failed = said.iter().filter(|line| line.contains("torch.OutOfMemoryError: CUDA out of memory"));
    assert_eq!(failed.count(), 2, "{said:?}");
    for (training, line) in trainings.iter_mut().zip(&said) {
        match line.starts_with("holding") {
            true => kill(training)?,
            false => assert_eq!(training.wait()?.code(), Some(1)),
        }
    }
    // A killed training cannot give its memory back itself, and yet it is free.
    let mut next = training(&scene, "1", &["143771", "60"])?;
    assert!(first_line(&mut next)?.starts_with("holding 143771 MiB"));
    kill(&mut next)
}

#[test]
fn a_training_without_a_card_says_so() -> Result<(), Box<dyn Error>> {
    let scene = Scene::new(vec![Card::default()])?;
    let mut training = training(&scene, "", &["1024", "60"])?;
    assert_eq!(first_line(&mut training)?, "RuntimeError: No CUDA GPUs are available\n");
    assert_eq!(training.wait()?.code(), Some(1));
    Ok(())
}
