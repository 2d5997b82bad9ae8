//! Compiling in child processes: a bounded pool, fair over namespaces; results cached by content; two crashes on one input
//! and no third try.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_bundle::{Digest, NamespaceUid};
use ballast_compiler::CompileOutcome;

use crate::cache::{CACHE_BYTES, Cache};
use crate::compilation::{Compilation, Compiler};
use crate::queue::Queue;
use crate::state::{StateDir, StateError};

/// Crashes on one input after which it is not tried again.
const CRASHES: u32 = 2;

/// A compilation has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// The worker died on this input, repeatedly.
    #[error(
        "the compiler's worker died twice on this model ({0}); the model is at fault or the compiler is: report it"
    )]
    Crashed(String),
    /// The worker could not do its work this time.
    #[error("the compiler's worker failed ({0}); it is tried again")]
    Failed(String),
    /// Cache.
    #[error("{0}")]
    State(String),
}

impl From<StateError> for BuildError {
    fn from(error: StateError) -> Self {
        Self::State(error.to_string())
    }
}

/// The pool.
pub struct Workers {
    cache: Arc<Cache>,
    compiler: Arc<dyn Compiler>,
    queue: Queue<NamespaceUid>,
    crashes: Mutex<HashMap<Digest, u32>>,
}

impl Workers {
    /// `count` compilations at once.
    pub fn new(state: &StateDir, compiler: Arc<dyn Compiler>, count: usize) -> Self {
        let cache = Arc::new(Cache::new(state.path("cache"), CACHE_BYTES));
        Self { cache, compiler, queue: Queue::new(count), crashes: Mutex::default() }
    }

    /// Compiles, or takes the result of the same compilation from the cache. Only called with sources that were just
    /// read on behalf of the namespace that asks: the cache never gives anybody what it could not read itself.
    pub async fn compile(
        &self,
        namespace: &NamespaceUid,
        compilation: Compilation,
    ) -> Result<CompileOutcome, BuildError> {
        let (cache, of) = (Arc::clone(&self.cache), compilation.clone());
        let (key, cached) = blocking(move || {
            let key = Cache::key(&of).map_err(|e| BuildError::State(e.to_string()))?;
            Ok::<_, BuildError>((key, cache.load(&key)?))
        })
        .await??;
        if let Some(outcome) = cached {
            return Ok(outcome);
        }
        let slot = self.queue.enter(namespace.clone()).await;
        let compiler = Arc::clone(&self.compiler);
        let ran = blocking(move || {
            // Given back when the worker has ended: that nobody waits for its result any more does not end it.
            let _slot = slot;
            // Copied only now: however many wait, they wait with the same bytes.
            compiler.compile(&compilation.into_request())
        })
        .await?;
        match ran {
            Ok(outcome) => {
                let cache = Arc::clone(&self.cache);
                let stored = blocking(move || cache.store(&key, &outcome).map(|()| outcome)).await?;
                self.crashes.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                Ok(stored?)
            }
            Err(error) if !error.is_inputs_fault() => Err(BuildError::Failed(error.to_string())),
            Err(error) => {
                let message = error.to_string();
                let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
                let count = crashes.remove(&key).unwrap_or(0) + 1;
                if count >= CRASHES {
                    // Said, and so forgotten here: the release remembers it, and a person's retry is a new beginning.
                    return Err(BuildError::Crashed(message));
                }
                crashes.insert(key, count);
                Err(BuildError::Failed(message))
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| BuildError::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use ballast_bundle::{GoldenMatch, Tolerance, UnixMillis, Verification};
    use ballast_compiler::{CompileRequest, RuntimeLimits, TargetSpec, WorkerError};

    use super::*;

    /// Fails as it is told, and counts.
    struct Failing(fn() -> WorkerError, AtomicU32);

    impl Compiler for Failing {
        fn compile(&self, _request: &CompileRequest) -> Result<CompileOutcome, WorkerError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Err(self.0())
        }
    }

    fn namespace(name: &str) -> NamespaceUid {
        name.parse().unwrap()
    }

    fn compilation(model_name: &str) -> Compilation {
        let request = CompileRequest {
            model: Vec::new(),
            model_name: model_name.into(),
            version: "1.0.0".into(),
            variant: "fp32".into(),
            target: TargetSpec {
                name: "x86-64".parse().unwrap(),
                triple: "x86_64-unknown-linux-musl".into(),
                cpu_features: vec![],
                memory_bytes: 1 << 30,
                deny: vec![],
                gflops: 0.0,
                memory_bandwidth: 0.0,
            },
            inputs: vec![],
            runtime: RuntimeLimits {
                memory_limit: 1 << 20,
                deadline_millis: None,
                instances: 1,
                max_queue: 1,
                ..RuntimeLimits::default()
            },
            verification: Verification {
                golden_match: GoldenMatch::Values,
                min_matching_per_mille: 1000,
                tolerance: Tolerance { absolute: 1e-4, relative: 1e-3 },
                finite_outputs: true,
                max_latency_p99_millis: None,
                user_golden: false,
            },
            golden: None,
        };
        Compilation { request, model: Arc::new(vec![1, 2, 3]), golden: None }
    }

    /// How often one input was tried in four attempts, and what the last one said.
    async fn four_attempts(error: fn() -> WorkerError) -> (u32, BuildError) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path(), UnixMillis(1_700_000_000_000)).unwrap();
        let compiler = Arc::new(Failing(error, AtomicU32::new(0)));
        let workers = Workers::new(&state, Arc::<Failing>::clone(&compiler), 1);
        for _ in 0..3 {
            workers.compile(&namespace("a"), compilation("m")).await.unwrap_err();
        }
        let last = workers.compile(&namespace("a"), compilation("m")).await.unwrap_err();
        (compiler.1.load(Ordering::Relaxed), last)
    }

    #[tokio::test]
    async fn every_second_end_of_a_worker_blames_the_model_so_that_a_retry_has_two_tries_again() {
        let (tries, error) = four_attempts(|| WorkerError::Memory { limit: 1 }).await;
        assert_eq!(tries, 2 * CRASHES);
        assert!(matches!(error, BuildError::Crashed(_)), "{error}");
    }

    #[tokio::test]
    async fn what_the_machine_does_wrong_is_no_models_fault() {
        let (tries, error) = four_attempts(|| WorkerError::Isolation("no seccomp".into())).await;
        assert_eq!(tries, 4);
        assert!(matches!(&error, BuildError::Failed(why) if why.contains("no seccomp")), "{error}");
    }

    /// Says whose model it was given, and refuses it when it is told to go on.
    struct Stepped(Mutex<mpsc::Sender<String>>, Mutex<mpsc::Receiver<()>>);

    impl Compiler for Stepped {
        fn compile(&self, request: &CompileRequest) -> Result<CompileOutcome, WorkerError> {
            assert_eq!(request.model, [1, 2, 3]);
            self.0.lock().unwrap().send(request.model_name.clone()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
            Err(WorkerError::Isolation("stepped".into()))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fifty_compilations_of_one_namespace_do_not_hold_up_another_ones() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path(), UnixMillis(1_700_000_000_000)).unwrap();
        let (started, starts) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let compiler = Arc::new(Stepped(Mutex::new(started), Mutex::new(goes)));
        let workers = Arc::new(Workers::new(&state, compiler, 1));
        let mut tasks = tokio::task::JoinSet::new();
        let mut ask = |name: &'static str| {
            let workers = Arc::clone(&workers);
            tasks.spawn(async move { workers.compile(&namespace(name), compilation(name)).await });
        };
        let waiting = async |count| {
            for _ in 0..10_000 {
                if workers.queue.waiting() == count {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            panic!("{} of {count} wait", workers.queue.waiting());
        };
        (0..51).for_each(|_| ask("many"));
        waiting(50).await;
        ask("one");
        waiting(51).await;
        let mut order = Vec::new();
        for _ in 0..52 {
            order.push(starts.recv_timeout(std::time::Duration::from_secs(60)).unwrap());
            assert!(starts.try_recv().is_err(), "one at a time");
            go.send(()).unwrap();
        }
        while let Some(ended) = tasks.join_next().await {
            assert!(matches!(ended.unwrap(), Err(BuildError::Failed(_))));
        }
        // One compiled while it came, and one more waited longer.
        assert_eq!(order.iter().position(|name| name == "one"), Some(2), "{order:?}");
    }
}
