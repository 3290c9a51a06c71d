from sqlalchemy.orm import selectinload
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.association_object import (
    Course,
    Enrolment,
    Student,
    enrol,
    students_with_grades,
)

TABLES = [Student, Course, Enrolment]


async def ada_in_maths(session: AsyncSession) -> Student:
    student, course = Student(name="Ada"), Course(title="maths")
    session.add_all([student, course])
    enrol(session, student, course, grade=1)
    await session.commit()
    session.expunge_all()
    return (await students_with_grades(session))[0]


async def test_a_student_comes_with_grades_and_courses_in_two_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    await ada_in_maths(session)
    session.expunge_all()
    statements.clear()

    (student,) = await students_with_grades(session)

    assert [(link.grade, link.course.title) for link in student.enrolments] == [(1, "maths")]
    assert statements.count == 2


async def test_the_shortcut_reads_past_the_enrolment(session: AsyncSession) -> None:
    await ada_in_maths(session)
    session.expunge_all()

    student = (await session.exec(select(Student).options(selectinload(Student.courses)))).one()

    assert [course.title for course in student.courses] == ["maths"]


async def test_the_shortcut_writes_nothing(session: AsyncSession) -> None:
    await ada_in_maths(session)
    session.expunge_all()
    ada = (await session.exec(select(Student).options(selectinload(Student.courses)))).one()

    ada.courses.append(Course(title="chess"))
    await session.commit()

    assert len((await session.exec(select(Enrolment))).all()) == 1
    assert [course.title for course in await session.exec(select(Course))] == ["maths"]


async def test_an_enrolment_is_added_without_loading_either_collection(
    session: AsyncSession, statements: StatementLog
) -> None:
    ada = await ada_in_maths(session)
    course = Course(title="chess")
    session.add(course)
    await session.flush()
    session.expire(ada, ["enrolments"])
    statements.clear()

    enrol(session, ada, course)
    await session.flush()

    assert [text.split()[:3] for text in statements.texts] == [["INSERT", "INTO", "enrolment"]]


async def test_a_removed_enrolment_is_deleted_and_the_course_stays(session: AsyncSession) -> None:
    student = await ada_in_maths(session)

    student.enrolments.clear()
    await session.commit()

    assert (await session.exec(select(Enrolment))).all() == []
    assert len((await session.exec(select(Course))).all()) == 1


async def test_enrolments_go_with_the_course(session: AsyncSession) -> None:
    await ada_in_maths(session)
    course = (await session.exec(select(Course))).one()

    await session.delete(course)
    await session.commit()

    assert (await session.exec(select(Enrolment))).all() == []
    assert len((await session.exec(select(Student))).all()) == 1
