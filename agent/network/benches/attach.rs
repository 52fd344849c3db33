//! How long a container waits for its network: medians, in microseconds, on a host of its own (a
//! thread in a new network namespace). Needs root and the `nft` program. A small program and not a
//! harness, since every round needs the kernel to have come to rest.

#![allow(clippy::print_stdout, reason = "the figures are its answer")]

use std::time::{Duration, Instant};

use berth_network::{BridgeConfig, Network};
use berth_sys::ns::{self, Namespaces};

const ROUNDS: usize = 100;

/// Between rounds: dead namespaces are gone after some 50 ms, and the pool is full again.
const REST: Duration = Duration::from_millis(80);

fn main() {
    let done = ns::in_thread(|| {
        ns::unshare(Namespaces::NET)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(measure()).map_err(std::io::Error::other)
    });
    if let Err(error) = done.and_then(|result| result) {
        println!("not measured: {error}");
    }
}

async fn measure() -> berth_network::Result<()> {
    let network = Network::with_ready(BridgeConfig::default(), 0);
    let begin = Instant::now();
    let first = network.attach("first", None, None).await?;
    println!(
        "first attach of an agent (rules, bridge): {} us",
        begin.elapsed().as_micros()
    );
    drop(network);
    let network = Network::with_ready(BridgeConfig::default(), 0);
    let begin = Instant::now();
    network
        .restore([("first".to_owned(), first.endpoint.clone())])
        .await?;
    println!(
        "take-over of what is there: {} us",
        begin.elapsed().as_micros()
    );
    rounds("namespace on demand", &network).await?;
    rounds(
        "warm namespace",
        &Network::with_ready(network.config().clone(), 3),
    )
    .await
}

async fn rounds(what: &str, network: &Network) -> berth_network::Result<()> {
    let (mut attached, mut released, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    network.warm();
    for round in 0..ROUNDS {
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        let sandbox = network
            .attach(&round.to_string(), None, Some([172, 29, 9, 9].into()))
            .await?;
        attached.push(begin.elapsed());
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        network.release(&sandbox.endpoint).await?;
        released.push(begin.elapsed());
        drop(sandbox);
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        let netns = network.isolated().await?;
        alone.push(begin.elapsed());
        drop(netns);
    }
    println!(
        "{what}: attach {}, release {}, isolated {}",
        figures(attached),
        figures(released),
        figures(alone)
    );
    Ok(())
}

fn figures(mut samples: Vec<Duration>) -> String {
    samples.sort();
    let at = |percent: usize| {
        samples
            .get(samples.len() * percent / 100)
            .map_or(0, Duration::as_micros)
    };
    format!("{} us ({}..{})", at(50), at(10), at(90))
}
