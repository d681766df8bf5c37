// A process with engines as a member of a NATS cluster: a service for each model, and a worker for its batch jobs.
import type { ServedModel } from '../served-model.js'
import type { NatsLink } from './connection.js'
import { type JobServer, JobWorker } from './job-worker.js'
import { ReplicaService } from './replica-service.js'

export class ClusterMember {
  readonly #services: readonly ReplicaService[]
  readonly #workers: readonly JobWorker[]

  private constructor(services: readonly ReplicaService[], workers: readonly JobWorker[]) {
    this.#services = services
    this.#workers = workers
  }

  /** models: with fingerprints. jobs: batch jobs that run at once, for each model; 0: none are taken. */
  static async join(
    link: NatsLink,
    models: ReadonlyMap<string, ServedModel>,
    server: JobServer,
    jobs: number,
    log: (text: string) => void,
  ): Promise<ClusterMember> {
    const groups = [...models.values()].map((model) => ({ model, group: model.fingerprint as string }))
    const services = await Promise.all(groups.map(({ model, group }) => ReplicaService.start(link, model, group, log)))
    for (const { group, instance } of services) log(`replica ${instance} of ${group} is in the cluster`)
    const workers = jobs > 0 ? groups.map(({ group, model }) => new JobWorker({ link, group, engine: model.engine, server, jobs, log })) : []
    return new ClusterMember(services, workers)
  }

  drain(): void {
    for (const part of [...this.#services, ...this.#workers]) part.drain()
  }

  async close(): Promise<void> {
    await Promise.all([...this.#services, ...this.#workers].map((part) => part.close()))
  }
}
