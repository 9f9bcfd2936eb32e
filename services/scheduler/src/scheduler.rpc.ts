import { Controller, Inject } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { DomainReport, RestoreReport } from '@chronovirt/contracts/agent/agent.commands';
import { BootReport } from '@chronovirt/contracts/boot-job/boot-job.commands';
import { driftCommands, DriftReport } from '@chronovirt/contracts/drift/drift.commands';
import { nodeCommands } from '@chronovirt/contracts/node/node.commands';
import { vmNameCommands } from '@chronovirt/contracts/reservation/reservation.commands';
import { vmCommands } from '@chronovirt/contracts/vm/vm.commands';
import type { Answer } from '@chronovirt/decider/decider';
import { readDelivery } from '@chronovirt/host/read-delivery';
import { type Delivery, Reject } from '@chronovirt/messaging/consume';
import { Consumes } from '@chronovirt/messaging/strategy';
import { commandsOf, parseReportSubject, reportsFor } from '@chronovirt/messaging/topology';
import type { Scheduler } from './scheduler.consumer.ts';

export const SCHEDULER = Symbol('scheduler');

const commands = { ...vmCommands, ...nodeCommands, ...driftCommands, ...vmNameCommands };

/** The scheduler's ears on the bus: parse, hand over, answer. */
@Controller()
export class SchedulerRpc {
  constructor(@Inject(SCHEDULER) private readonly scheduler: Scheduler) {}

  @Consumes(commandsOf('scheduler'), { concurrency: 256, window: 1_024, confirmed: false })
  obey(@Payload() delivery: Delivery): Promise<Answer> {
    return this.scheduler.obey(readDelivery(commands, delivery));
  }

  @Consumes(reportsFor('scheduler', 'vm'), { concurrency: 64, confirmed: false })
  async report(@Payload() delivery: Delivery): Promise<void> {
    const report = DomainReport.safeParse(delivery.json());
    // The server lets a node publish under its own name only; what it writes inside is its word alone.
    if (!report.success || report.data.nodeId !== parseReportSubject(delivery.subject)?.nodeId) throw new Reject('not a report of this node');
    await this.scheduler.report(report.data);
  }

  @Consumes(reportsFor('scheduler', 'drift'), { concurrency: 16, confirmed: false })
  async drift(@Payload() delivery: Delivery): Promise<void> {
    const report = DriftReport.safeParse(delivery.json());
    if (!report.success || report.data.nodeId !== parseReportSubject(delivery.subject)?.nodeId) throw new Reject('not a report of this node');
    await this.scheduler.driftReport(report.data);
  }

  @Consumes(reportsFor('scheduler', 'boot'), { concurrency: 16, confirmed: false })
  async boot(@Payload() delivery: Delivery): Promise<void> {
    const report = BootReport.safeParse(delivery.json());
    if (!report.success || report.data.nodeId !== parseReportSubject(delivery.subject)?.nodeId) throw new Reject('not a report of this node');
    await this.scheduler.bootReport(report.data);
  }

  @Consumes(reportsFor('scheduler', 'restore'), { concurrency: 16, confirmed: false })
  async restore(@Payload() delivery: Delivery): Promise<void> {
    const report = RestoreReport.safeParse(delivery.json());
    if (!report.success || report.data.nodeId !== parseReportSubject(delivery.subject)?.nodeId) throw new Reject('not a report of this node');
    await this.scheduler.restoreReport(report.data);
  }
}
