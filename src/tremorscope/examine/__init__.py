"""The report on any network, composed from methods of several groups; it computes nothing of its own."""

from tremorscope.examine.examination import examine as examine
