//! The signals that reach the runner, for the program.

use nix::sys::signal::Signal;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{self, SignalKind};

/// What is passed on to the program.
const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Every signal the runner listens for. As the first process of a container it gets none that it does not ask for.
#[derive(Debug)]
pub struct Signals {
    forwarded: Vec<(Signal, unix::Signal)>,
    child: unix::Signal,
}

/// One signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// For the program.
    Forward(Signal),
    /// A process of ours changed its state.
    Child,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        let forwarded = FORWARDED
            .into_iter()
            .map(|signal| Ok((signal, unix::signal(SignalKind::from_raw(signal as i32))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { forwarded, child: unix::signal(SignalKind::child())? })
    }

    /// The next one. Those for the program come first: a stop is not to wait behind dying children.
    pub async fn next(&mut self) -> Signalled {
        std::future::poll_fn(|context| {
            for (signal, stream) in &mut self.forwarded {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(Signalled::Forward(*signal));
                }
            }
            self.child.poll_recv(context).map(|_| Signalled::Child)
        })
        .await
    }

    /// The next one that asks the run to end; others are passed over, for there is no program yet, or none any more.
    pub async fn stop(&mut self) -> Signal {
        loop {
            if let Signalled::Forward(signal @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT)) = self.next().await
            {
                return signal;
            }
        }
    }
}
