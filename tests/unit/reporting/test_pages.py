"""Pages from templates: values are escaped, the policy admits the page's own script, and long pages need no memory."""

import re
import tracemalloc

import pytest
from bundle.reporting.pages import TEMPLATES, content_security_policy, write_page
from jinja2 import ChoiceLoader, DictLoader, UndefinedError

LIST = """{% extends "base.html" %}
{% block content %}
{% for row in rows %}
<p>{{ row }}</p>
{% endfor %}
{% endblock %}
{% block script %}
"use strict";
{% endblock %}
"""


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    monkeypatch.setattr(TEMPLATES, "loader", ChoiceLoader([DictLoader({"list.html": LIST}), TEMPLATES.loader]))

    def write(**values):
        path = tmp_path / "page.html"
        write_page(path, "list.html", **{"title": "A", "facts": {}, "rows": []} | values)
        return path

    return write


def test_every_value_is_escaped(page_of):
    hostile = "</title></script>\"'&"
    page = page_of(title=hostile, facts={hostile: hostile}, rows=[hostile]).read_text(encoding="utf-8")
    assert page.count("&lt;/title&gt;&lt;/script&gt;&#34;&#39;&amp;") == 5
    assert page.count("</title>") == page.count("</script>") == 1


def test_the_policy_admits_the_script_of_the_page_and_no_other(page_of):
    page = page_of().read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    policy = content_security_policy(script, pictures=False)
    assert f'content="{policy}"' in page
    assert policy != content_security_policy(script + " ", pictures=False)


@pytest.mark.parametrize(
    ("template", "admitted"), [("report.html", True), ("data_check.html", True), ("decisions.html", False)]
)
def test_only_the_policy_of_a_page_with_pictures_admits_them(template, admitted):
    """The head of the page is enough: what comes later is not rendered."""
    head = ""
    for part in TEMPLATES.get_template(template).generate(title="A", facts={}, unread={}, grade_names=[]):
        head += part
        if "form-action 'none'" in head:
            break
    assert ("img-src data:;" in head) == admitted


def test_a_missing_value_is_an_error_and_leaves_no_file(page_of, tmp_path):
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        write_page(tmp_path / "page.html", "base.html", facts={})
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_rows(page_of):
    """10,000 rows of 1 kB each: at most two are in memory."""
    page_of()  # compiles the template
    tracemalloc.start()
    path = page_of(rows=(f"{number:1000}" for number in range(10_000)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak_bytes < 300_000
