/*
 * Drives sagas: computes what is outstanding from the log, sends it, takes the answers.
 *
 * Nothing here must survive. Any process may drive any saga at any time, because command ids are made from
 * the saga's stream, step and phase, receivers remember their answers, and every answer taken is an append
 * that checks the stream's version. So the process that starts a saga drives it at full speed on the
 * replies that come straight back; if it dies, whoever leads finds the saga among the open ones, computes
 * the same commands, and goes on.
 *
 * An unanswered command is sent again after 1, 2, 4, 8, 8 … seconds until its deadline.
 *
 * A saga that turns back first answers what is still on its way to services: 'command.cancelled', in the log
 * that they all ask before they record anything. From there on such a command can add nothing, however late it
 * comes and whether or not the undo that names it in `cancels` ever arrives. Nodes do not ask the log; for them
 * the undo carries the list.
 */
import type { CommandEnvelope, CommandMeta, Outgoing } from '@chronovirt/contracts/command';
import { type Answer, type Facts, isRefusal, refuse } from '@chronovirt/decider/decider';
import { outstanding, type Phase, type Saga, type SagaCommand, sagaDecider, type SagaState, type StepAnswer, underWay } from '@chronovirt/decider/saga';
import type { CommandHandler } from './handle.ts';

export type AnySaga = Saga<Facts, Outgoing>;

export interface SagaPorts {
  readonly handler: CommandHandler;
  /** Sends a command; its answer comes back through `take`, soon, late, twice or never. `again`: it was sent before and not answered. */
  readonly send: (envelope: CommandEnvelope, again: boolean) => void;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly commandIdOf: (key: string) => string;
  /** Told once for each saga that this process saw ending. */
  readonly ended?: (saga: { readonly name: string; readonly id: string; readonly state: SagaState<Facts>; readonly startedAt: number }) => void;
}

interface Active {
  readonly name: string;
  readonly id: string;
  readonly stream: string;
  readonly meta: CommandMeta;
  readonly sent: Map<string, { readonly commandId: string; readonly dueAt: number | null; attempts: number; putOff: number; againAt: number }>;
  /** What was under way when the saga turned back is cancelled. */
  turnedBack: boolean;
  /** Answers that came while earlier ones are being recorded: they go together. */
  came: StepAnswer[];
  taking: Promise<void> | undefined;
}

const AGAIN_AFTER_MS_MAX = 8_000;
/** A node that says "not now" is asked again after 250, 500, 1,000, 2,000 … milliseconds. */
const PUT_OFF_MS_MAX = 2_000;

/** Answers that only say "not now": the node has another session, or none yet. The command is sent again. */
const notAnAnswer = new Set(['node.old_session', 'node.no_session']);

export class SagaRunner {
  private readonly active = new Map<string, Active>();
  private readonly waiting = new Map<string, { readonly active: Active; readonly step: string; readonly phase: Phase }>();
  private readonly deciders: Map<string, { saga: AnySaga; decider: ReturnType<typeof sagaDecider<Facts, Outgoing>> }>;
  private readonly ports: SagaPorts;

  constructor(sagas: readonly AnySaga[], ports: SagaPorts) {
    this.ports = ports;
    this.deciders = new Map(sagas.map((saga) => [saga.name, { saga, decider: sagaDecider(saga) }]));
  }

  /** Sagas driven by this process now. */
  get size(): number {
    return this.active.size;
  }

  isDriving(name: string, id: string): boolean {
    return this.active.has(`saga-${name}-${id}`);
  }

  /** Starts a saga, or continues it when it was started before. */
  async start(name: string, id: string, input: Facts, meta: CommandMeta): Promise<void> {
    await this.obey(name, id, 'start', meta, { type: 'StartSaga', data: { input, at: this.ports.now() } });
  }

  /** Continues a saga that was started somewhere, sometime. */
  async resume(name: string, id: string, meta: CommandMeta): Promise<void> {
    const stream = `saga-${name}-${id}`;
    if (this.active.has(stream)) return;
    const active = this.activate(name, id, meta);
    await this.orLeave(active, () => this.advance(active));
  }

  /** Has no effect on a saga that is being undone, or all of whose steps are answered. */
  async cancel(name: string, id: string, because: string, meta: CommandMeta): Promise<void> {
    await this.obey(name, id, `cancel:${meta.operationId ?? ''}`, meta, { type: 'CancelSaga', data: { because, at: this.ports.now() } });
  }

  /** An answer came back. Late, repeated and unknown ones do nothing. */
  async take(commandId: string, answer: Answer): Promise<void> {
    const waiting = this.waiting.get(commandId);
    if (waiting === undefined) return;
    const { active, step, phase } = waiting;
    if (isRefusal(answer) && notAnAnswer.has(answer.refused)) {
      const sent = active.sent.get(`${step}:${phase}`);
      if (sent !== undefined) sent.againAt = Math.min(sent.againAt, this.ports.now() + Math.min(250 * 2 ** sent.putOff++, PUT_OFF_MS_MAX));
      return;
    }
    this.waiting.delete(commandId);
    active.came.push({ step, phase, answer });
    await (active.taking ??= this.takeAll(active).finally(() => { active.taking = undefined; }));
  }

  private async takeAll(active: Active): Promise<void> {
    // What came in the same packet comes along.
    await Promise.resolve();
    while (active.came.length > 0) {
      const answers = active.came.splice(0);
      const which = answers.map(({ step, phase }) => `${step}:${phase}`).join(',');
      await this.obey(active.name, active.id, `take:${which}`, active.meta, { type: 'TakeAnswers', data: { answers, at: this.ports.now() } });
    }
  }

  /** Sends again what was not answered, and notices what is overdue. To be called a few times a second while `size` is not 0. */
  async tick(): Promise<void> {
    const now = this.ports.now();
    const failures: unknown[] = [];
    for (const active of [...this.active.values()]) {
      // One that fails must not keep the others from moving: it would fail again at the next tick.
      await this.move(active, now).catch((error: unknown) => { failures.push(error); });
    }
    if (failures.length > 0) throw new AggregateError(failures, `${String(failures.length)} sagas could not be moved`);
  }

  private async move(active: Active, now: number): Promise<void> {
    const late = [...active.sent.entries()].filter(([, { dueAt }]) => dueAt !== null && dueAt <= now);
    if (late.length > 0) {
      // The deadlines are part of the id: asked too early, the answer "nothing is late" must not stand for ever.
      const which = late.map(([key, { dueAt }]) => `${key}@${String(dueAt)}`).join(',');
      await this.obey(active.name, active.id, `late:${which}`, active.meta, { type: 'CheckDeadlines', data: { at: now } });
    } else if ([...active.sent.values()].some(({ againAt }) => againAt <= now)) {
      await this.advance(active);
    }
  }

  /** A saga of which nothing was sent is not driven here: whoever leads must find it abandoned. */
  private async orLeave(active: Active, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (active.sent.size === 0) this.forget(active);
      throw error;
    }
  }

  private activate(name: string, id: string, meta: CommandMeta): Active {
    const stream = `saga-${name}-${id}`;
    const active = this.active.get(stream) ?? { name, id, stream, meta, sent: new Map(), turnedBack: false, came: [], taking: undefined };
    this.active.set(stream, active);
    return active;
  }

  private of(name: string): { saga: AnySaga; decider: ReturnType<typeof sagaDecider<Facts, Outgoing>> } {
    const found = this.deciders.get(name);
    if (found === undefined) throw new Error(`there is no saga called ${name}`);
    return found;
  }

  private async obey(name: string, id: string, what: string, meta: CommandMeta, command: SagaCommand<Facts>): Promise<void> {
    const active = this.activate(name, id, meta);
    // The id says what was decided, not when: the same answer taken by two processes is recorded once.
    const commandId = this.ports.commandIdOf(`${active.stream}:${what}`);
    await this.orLeave(active, async () => {
      await this.ports.handler.handle(this.of(name).decider, { id: commandId, stream: active.stream, command, cancels: [], meta: active.meta, likelyNew: command.type === 'StartSaga' });
      await this.advance(active);
    });
  }

  /** Reads the saga as it is now and sends what is outstanding and due. */
  private async advance(active: Active): Promise<void> {
    const { saga, decider } = this.of(active.name);
    const { state } = await this.ports.handler.log.load(active.stream, decider);
    if (state.status === 'absent' || state.status === 'ended') {
      this.forget(active);
      if (state.status === 'ended') this.ports.ended?.({ name: active.name, id: active.id, state, startedAt: state.startedAt });
      return;
    }
    if (state.status === 'undoing' && !active.turnedBack) {
      for (const { step, command } of underWay(saga, state)) {
        if (command.to === 'node') continue;
        const cancelled = this.ports.commandIdOf(`${active.stream}:${step}:run`);
        await this.ports.handler.log.answer(cancelled, refuse('command.cancelled'), { ...active.meta, commandId: cancelled });
      }
      active.turnedBack = true;
    }
    // Somebody else's failure may have left it meanwhile.
    if (!this.active.has(active.stream)) this.active.set(active.stream, active);
    const now = this.ports.now();
    const wanted = outstanding(saga, state);
    const keys = new Set(wanted.map(({ step, phase }) => `${step}:${phase}`));
    for (const [key, { commandId }] of active.sent) {
      if (keys.has(key)) continue;
      active.sent.delete(key);
      this.waiting.delete(commandId);
    }
    for (const { step, phase, command, cancels, dueAt } of wanted) {
      const key = `${step}:${phase}`;
      const earlier = active.sent.get(key);
      if (earlier !== undefined && earlier.againAt > now) continue;
      const attempts = (earlier?.attempts ?? 0) + 1;
      const commandId = this.ports.commandIdOf(command.as ?? `${active.stream}:${key}`);
      active.sent.set(key, { commandId, dueAt, attempts, putOff: earlier?.putOff ?? 0, againAt: now + Math.min(1_000 * 2 ** (attempts - 1), AGAIN_AFTER_MS_MAX) });
      this.waiting.set(commandId, { active, step, phase });
      this.ports.send({
        id: commandId, to: command.to, target: command.target, type: command.type, data: command.data as CommandEnvelope['data'],
        cancels: [...cancels.map((cancelled) => `${active.stream}:${cancelled}:run`), ...(command.cancels ?? [])].map((cancelled) => this.ports.commandIdOf(cancelled)),
        meta: active.meta,
      }, attempts > 1);
    }
  }

  private forget(active: Active): void {
    this.active.delete(active.stream);
    for (const { commandId } of active.sent.values()) this.waiting.delete(commandId);
  }
}
